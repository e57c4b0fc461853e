"""What a data set is, whatever its layout on disk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dmlray.errors import DataError

FINGERPRINT_FORMAT = 1  # raised when the same images would get another fingerprint


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images by class: `files` (N) relative to `root`, `labels` (N,) int64 into `classes` (C).

    Ordered by class, then by name; the first `train_classes` classes train, the rest are unseen.
    `remarks` are what every score of this data must carry: where it is not what its name promises.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    train_classes: int
    remarks: tuple[str, ...] = ()

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


def from_ordered(
    name: str,
    root: Path,
    classes: Sequence[tuple[str, Sequence[str]]],
    train_classes: int,
    remarks: tuple[str, ...] = (),
) -> Dataset:
    """Keep the order of `classes`, pairs of a name and its files, and sort the files of each."""
    counts = [len(files) for _, files in classes]
    return Dataset(
        name=name,
        root=root,
        files=tuple(file for _, files in classes for file in sorted(files)),
        labels=np.repeat(np.arange(len(classes), dtype=np.int64), counts),
        classes=tuple(label for label, _ in classes),
        train_classes=train_classes,
        remarks=remarks,
    )


def half(classes: int) -> int:
    """How many of `classes` train where nothing official says so: half, rounded up."""
    return (classes + 1) // 2


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
