"""Detect duplicate images: leaks between train and test, contradictions and repetitions."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from dmlray.data import boxes
from dmlray.data.cache.content import content
from dmlray.data.dataset import Dataset
from dmlray.errors import DataError


def check(dataset: Dataset, where: Callable[[int], str]) -> str | None:
    """Count the files that repeat another of their class, byte for byte; None if there are none.

    Args:
        dataset: Images to compare.
        where: Maps a row of the data set to its location for a message.

    Raises:
        DataError: If an image is in two classes, or in training and in test.
    """
    groups = _equal_files(dataset)
    clashing = [rows for rows in groups if _clashes(dataset, rows)]
    if clashing:
        pairs = sum(_clashes(dataset, rows) for rows in clashing)
        raise DataError(_contradiction(dataset, clashing[0], pairs, where))
    repeated = sum(len(rows) - 1 for rows in groups)
    return (
        f"{repeated} of {len(dataset)} images repeat another of their class" if repeated else None
    )


def _equal_files(dataset: Dataset) -> list[list[int]]:
    """Groups of two or more rows with equal files; only files of equal size are read."""
    groups: list[list[int]] = [list(range(len(dataset)))]
    for key in (_size, _digest, _whole):
        groups = [equal for group in groups for equal in _group_by(dataset, group, key)]
    return groups


def _group_by(
    dataset: Dataset, rows: Iterable[int], key_of: Callable[[Path], Hashable]
) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row in rows:
        file, box = boxes.split(dataset.files[row])
        with suppress(OSError):  # unreadable files are reported when they are decoded
            if key := key_of(dataset.root / file):
                groups[key, box].append(row)
    # Size 0: empty files are damaged, not duplicates; they are reported when they are decoded.
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _digest(path: Path) -> bytes:
    return content(path).digest


def _whole(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _clashes(dataset: Dataset, rows: list[int]) -> int:
    """Number of pairs of `rows` with different classes."""
    counts = np.unique(dataset.labels[rows], return_counts=True)[1]
    return int(len(rows) ** 2 - (counts**2).sum()) // 2


def _contradiction(
    dataset: Dataset, rows: list[int], pairs: int, where: Callable[[int], str]
) -> str:
    labels = dataset.labels[rows]
    other = int(np.flatnonzero(labels != labels[0])[0])
    if labels[0] < dataset.train_classes <= labels[other]:
        location = "in training and in test"
    else:
        location = " and ".join(f"in class {dataset.classes[labels[at]]!r}" for at in (0, other))
    return (
        f"{where(rows[0])} and {where(rows[other])}: the same image, {location}."
        f" Expected each image in one class and one split; {pairs} pairs are not."
    )
