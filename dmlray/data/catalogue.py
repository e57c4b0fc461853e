"""Data sets by name: which images there are, of which classes."""

import hashlib
import importlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dmlray.errors import ConfigError

_ABOUT = {
    "demo": "245 icons, each drawn by several icon families; made here, needs dmlray[demo]",
    "folder": "any folder with one sub-folder per class (data.root=FOLDER)",
}


@dataclass(frozen=True)
class Dataset:
    """Images and their classes; the first `train_classes` classes train, the others are unseen.

    `files` are relative to `root`, ordered by class, then name; `labels` (N,) index `classes`.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    train_classes: int

    @cached_property
    def fingerprint(self) -> str:
        """Changes when a path, a class or a file's size does."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels, strict=True):
            size = (self.root / file).stat().st_size
            digest.update(f"{file}\0{self.classes[label]}\0{size}\n".encode())
        return digest.hexdigest()[:16]


def names() -> list[str]:
    """Names of all data sets."""
    return list(_ABOUT)


def about(name: str) -> str:
    """One line on a data set."""
    return _ABOUT[name]


def load(name: str, root: Path | None) -> Dataset:
    """List the images of data set `name` below `root`; make them first where dmlray can.

    Raises:
        ConfigError: If there is no such data set.
        DataError: If its images are missing or make no data set.
    """
    if name not in _ABOUT:
        problem = f"unknown data set {name!r}. Allowed: {', '.join(_ABOUT)}"
        raise ConfigError("data.name", [problem])
    dataset = importlib.import_module(f"dmlray.data.{name}").load(root)
    assert isinstance(dataset, Dataset)
    return dataset
