"""Any folder with one sub-folder per class."""

from pathlib import Path

import numpy as np

from dmlray.data.catalogue import Dataset
from dmlray.errors import ConfigError, DataError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


def load(root: Path | None) -> Dataset:
    """List the folder data.root; the first half of the classes, sorted by name, train.

    Raises:
        ConfigError: If data.root is not given.
        DataError: If it is missing, or holds fewer than two classes with images.
    """
    if root is None:
        raise ConfigError(
            "data.root", ["is missing. Allowed: a folder with a sub-folder per class"]
        )
    return list_folder("folder", root)


def list_folder(name: str, root: Path) -> Dataset:
    """The data set of the images in the sub-folders of `root`, hidden ones left out."""
    if not root.is_dir():
        raise DataError(
            f"data.root: no such folder: {root}. Allowed: a folder with a sub-folder per class"
        )
    found = {folder.name: _images(folder) for folder in sorted(root.iterdir()) if _is_class(folder)}
    classes = [name for name, images in found.items() if images]
    if len(classes) < 2:
        raise DataError(
            f"data.root: {root} has {len(classes)} sub-folders with images. Allowed: at least 2, "
            f"one per class, with {', '.join(sorted(SUFFIXES))}"
        )
    files = [f"{label}/{image}" for label in classes for image in found[label]]
    labels = np.repeat(np.arange(len(classes)), [len(found[label]) for label in classes])
    return Dataset(name, root, tuple(files), labels, tuple(classes), (len(classes) + 1) // 2)


def _is_class(folder: Path) -> bool:
    return folder.is_dir() and not folder.name.startswith(".")


def _images(folder: Path) -> list[str]:
    return sorted(
        file.name
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
