"""The listed images of a data set, independent of their layout on disk."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from dmlray.data import boxes
from dmlray.data.cache.content import contents
from dmlray.data.roles import Roles, with_match

FINGERPRINT_FORMAT = 1  # increased when the fingerprint of the same images changes


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images by class: `files` (N) relative to `root`, `labels` (N,) int64 into `classes` (C).

    A file may name a box, see `boxes`: a part of an image file, cut before it is cached.

    Ordered by class, then by name; the first `train_classes` classes train, the rest are unseen.
    `remarks` go into every score: deviations from the published data set.
    `listed` is the data set before broken images were left out, if some were.
    `roles` (N,): None if each image is searched for in all others.
    `categories` (N,) text: super-classes, from which batches may be filled; None without them.
    """

    name: str
    root: Path
    files: tuple[str, ...]
    labels: np.ndarray
    classes: tuple[str, ...]
    train_classes: int
    remarks: tuple[str, ...] = ()
    listed: "Dataset | None" = None
    roles: Roles | None = None
    categories: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        """Short hash of (relative path, class, size, content) of all files: equal on any machine.

        Large files are sampled: see `content.content`. With roles, these and groups are hashed too.
        """
        return self._identity[0]

    @property
    def modified(self) -> str:
        """Short hash of the modification times of all files, in ns, on this machine."""
        return self._identity[1]

    @cached_property
    def _identity(self) -> tuple[str, str]:
        files = contents(self.root, self.files)
        details = (f"{file.size}\0{file.digest.hex()}" for file in files)
        return self._hash(details), self._hash(str(file.modified) for file in files)

    def has_fingerprint(self, text: str) -> bool:
        """Whether `text` is the fingerprint, or the fingerprint of sizes alone of older runs."""
        if text == self.fingerprint:
            return True
        paths = (boxes.file_of(self.root / file) for file in self.files)
        return text == self._hash(str(path.stat().st_size) for path in paths)

    @cached_property
    def with_match(self) -> np.ndarray:
        """(N,) bool: which images are queries that have a match in the gallery."""
        return with_match(self.labels, self.roles)

    def _hash(self, details: Iterable[str]) -> str:
        digest = hashlib.sha256()
        if self.roles:
            details = map("\0".join, zip(details, self.roles.details(), strict=True))
        for file, label, detail in zip(self.files, self.labels, details, strict=True):
            line = "\0".join((file, self.classes[label], detail))
            digest.update(f"{line}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]


def from_ordered(
    name: str,
    root: Path,
    classes: Sequence[tuple[str, Sequence[str]]],
    train_classes: int,
    remarks: tuple[str, ...] = (),
) -> Dataset:
    """Build a data set from (name, files) pairs: classes keep their order, files are sorted."""
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
    """Number of training classes without an official split: half, rounded up."""
    return (classes + 1) // 2
