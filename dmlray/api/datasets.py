"""The functions behind the commands below `dmlray data`."""

from collections.abc import Sequence
from pathlib import Path

from dmlray.data.archives import download, extract
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import registry
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import Verification, verify
from dmlray.errors import ConfigError
from dmlray.local_paths import path_of
from dmlray.reporting.progress import Display, Shown, shown


def prepare_data(
    name: str,
    root: str | Path | None = None,
    sources: Sequence[str | Path] = (),
    split: Split = "classes",
    *,
    fetched: bool = False,
    display: Shown = "auto",
) -> Dataset:
    """Make or find a data set, from archives or from its public address.

    Args:
        name: One of `dmlray data list`.
        root: Folder (csv: file) that holds the images, or into which they are unpacked.
        sources: Official archives to unpack below `root`.
        split: Which classes train: the first half, or as folder or csv say.
        fetched: Fetch the archives first.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        ConfigError: If there is no such data set, or no `root` to unpack into.
        DataError: If an archive is damaged, the address dead, or the images are not all there.
    """
    folder = None if root is None else path_of("root", root)
    files = [path_of("sources", source) for source in sources]
    if (files or fetched) and folder is None:
        raise ConfigError("`root`", ["is missing. Allowed: the folder to unpack into"])
    with shown(display) as entered:
        if folder is not None:
            _unpack(name, folder, files, fetched, entered)
        return registry.load(name, folder, split)


def _unpack(name: str, root: Path, files: list[Path], fetched: bool, display: Display) -> None:
    if fetched:
        source = registry.source(name)
        progress = display.count(f"fetching {source.file}, MB", 1 << 20)
        files = [*files, download.fetch(source, root, progress)]
    for file in files:
        extract.extract_or_copy(file, root, display.count(f"unpacking {file.name}"))


def verify_data(
    name: str,
    root: str | Path | None = None,
    split: Split = "classes",
    max_megapixels: float | None = None,
    *,
    display: Shown = "auto",
) -> Verification:
    """Check a data set's layout, counts, order of classes, and decode every file.

    Args:
        name: One of `dmlray data list`.
        root: Folder (csv: file) that holds the images.
        split: Which classes train: the first half, or as folder or csv say.
        max_megapixels: Larger images are unreadable; None means Pillow's own limit.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DataError: If no layout fits.
    """
    folder = None if root is None else path_of("root", root)
    most = None if max_megapixels is None else round(max_megapixels * 1e6)
    with shown(display) as entered:
        return verify(name, folder, entered.count("decoding images"), split, most)
