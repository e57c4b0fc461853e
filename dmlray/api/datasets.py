"""The functions behind the commands below `dmlray data`."""

from collections.abc import Sequence
from pathlib import Path

from dmlray.data.archives import download, extract
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import registry
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import Verification, verify
from dmlray.errors import ConfigError
from dmlray.reporting.progress import Display, SilentDisplay


def prepare_data(
    name: str,
    root: Path | None,
    sources: Sequence[Path] = (),
    split: Split = "classes",
    *,
    fetched: bool = False,
    display: Display | None = None,
) -> Dataset:
    """Make or find a data set, from archives in `sources` or from its public address if `fetched`.

    Raises:
        DataError: If an archive is damaged, the address dead, or the images are not all there.
    """
    display = display or SilentDisplay()
    if (sources or fetched) and root is None:
        raise ConfigError("--root", ["is missing. Allowed: the folder to unpack into"])
    if root is not None:
        if fetched:
            source = registry.source(name)
            progress = display.count(f"fetching {source.file}, MB", 1 << 20)
            sources = [*sources, download.fetch(source, root, progress)]
        for file in sources:
            extract.extract_or_copy(file, root, display.count(f"unpacking {file.name}"))
    return registry.load(name, root, split)


def verify_data(
    name: str,
    root: Path | None,
    display: Display | None = None,
    split: Split = "classes",
    max_megapixels: float | None = None,
) -> Verification:
    """Check a data set's layout, counts, order of classes, and decode every file.

    Args:
        max_megapixels: Larger images are unreadable; None means Pillow's own limit.
    """
    display = display or SilentDisplay()
    most = None if max_megapixels is None else round(max_megapixels * 1e6)
    return verify(name, root, display.count("decoding images"), split, most)
