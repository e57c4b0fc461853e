"""What a data set is, whatever its layout on disk."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dmlray.errors import DataError


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images by class: `files` (N) relative to `root`, `labels` (N,) int64 into `classes` (C).

    Ordered by class, then by name; the first `train_classes` classes train, the rest are unseen.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    train_classes: int

    def __len__(self) -> int:
        return len(self.files)

    @cached_property
    def fingerprint(self) -> str:
        """Short hash of (relative path, class, size in bytes) of all files."""
        digest = hashlib.sha256()
        for file, label in zip(self.files, self.labels, strict=True):
            line = "\0".join((file, self.classes[label], str(_size(self.root / file))))
            digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def from_classes(name: str, root: Path, files: Mapping[str, Sequence[str]]) -> Dataset:
    """Order class -> files by name and let the first half of the classes train, rounded up."""
    classes = tuple(sorted(files))
    counts = [len(files[label]) for label in classes]
    return Dataset(
        name=name,
        root=root,
        files=tuple(file for label in classes for file in sorted(files[label])),
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
        classes=classes,
        train_classes=(len(classes) + 1) // 2,
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
