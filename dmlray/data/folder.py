"""Anybody's own images: one sub-folder per class."""

from pathlib import Path

from dmlray.data.dataset import Dataset, from_classes
from dmlray.errors import ConfigError, DataError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


def load(root: Path | None) -> Dataset:
    """List the data set `folder`."""
    if root is None:
        problem = "data set 'folder' needs a folder with one sub-folder per class. Set data.root."
        raise ConfigError("data.root", [problem])
    return read("folder", root)


def read(name: str, root: Path) -> Dataset:
    """List JPEG, PNG and WebP images in the sub-folders of `root`; hidden names are passed over."""
    root = root.expanduser().resolve()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder. Expected one sub-folder of images per class.")
    found = {folder.name: _images(folder) for folder in _visible(root) if folder.is_dir()}
    files = {label: images for label, images in found.items() if images}
    if len(files) < 2:
        raise DataError(
            f"{root}: {len(found)} sub-folders, {len(files)} of them with JPEG, PNG or WebP images."
            " Expected at least 2, one per class."
        )
    return from_classes(name, root, files)


def _images(folder: Path) -> list[str]:
    return [
        f"{folder.name}/{path.name}"
        for path in _visible(folder)
        if path.suffix.lower() in SUFFIXES and path.is_file()
    ]


def _visible(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}.") from error
