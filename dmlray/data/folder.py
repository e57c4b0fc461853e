"""Anybody's own images: one sub-folder per class."""

from pathlib import Path

from dmlray.data import sides
from dmlray.data.dataset import Dataset
from dmlray.data.sides import Split
from dmlray.errors import ConfigError, DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def load(root: Path | None, split: Split = "classes") -> Dataset:
    """List the data set `folder`: `root/<class>/`, or `root/{train,test}/<class>/` as given.

    Raises:
        ConfigError: If there is no root.
        DataError: If images are missing, alone in a test class or contradict each other.
    """
    if root is None:
        problem = "data set 'folder' needs a folder with one sub-folder per class. Set data.root."
        raise ConfigError("data.root", [problem])
    dataset = read("folder", root) if split == "classes" else _read_given(root)
    return sides.checked(dataset, lambda row: str(dataset.root / dataset.files[row]))


def read(name: str, root: Path) -> Dataset:
    """List JPEG, PNG and WebP images in the sub-folders of `root`; hidden names are passed over."""
    root = root.expanduser().resolve()
    images = _classes(root)
    if len(images) < 2:
        found = sum(folder.is_dir() for folder in _visible(root))
        given = all((root / side).is_dir() for side in ("train", "test"))
        hint = " For train/<class>/ and test/<class>/ set data.split=given." if given else ""
        raise DataError(
            f"{root}: {found} sub-folders, {len(images)} of them with JPEG, PNG or WebP images."
            f" Expected at least 2, one per class.{hint}"
        )
    return sides.join(name, root, *sides.halves(images))


def _read_given(root: Path) -> Dataset:
    root = root.expanduser().resolve()
    train, test = (_classes(root / side, f"{side}/") for side in ("train", "test"))
    for side, images in (("train", train), ("test", test)):
        if not images:
            raise DataError(
                f"{root / side}: no sub-folder with JPEG, PNG or WebP images."
                " Expected at least 1, one per class."
            )
    return sides.join("folder", root, train, test)


def _classes(root: Path, prefix: str = "") -> dict[str, list[str]]:
    """Class -> images in the sub-folders of `root` that have any, each named after `prefix`."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Expected one sub-folder of images per class.")
    folders = [folder for folder in _visible(root) if folder.is_dir()]
    found = {folder.name: _images(folder, prefix) for folder in folders}
    return {label: images for label, images in found.items() if images}


def _images(folder: Path, prefix: str) -> list[str]:
    return [
        f"{prefix}{folder.name}/{path.name}"
        for path in _visible(folder)
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}.") from error
