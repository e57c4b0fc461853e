"""The same image twice: a leak, a contradiction, or a waste."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from dmlray.data.cache.content import content
from dmlray.data.dataset import Dataset
from dmlray.errors import DataError


def check(dataset: Dataset, where: Callable[[int], str]) -> str | None:
    """Count the files that repeat another of their class, byte for byte; None if there are none.

    Args:
        where: Tells where the user finds a row of the data set.

    Raises:
        DataError: If an image stands in two classes, or in training and in test.
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
    """Rows of equal files, in groups of two or more; few files are read, fewer twice."""
    groups: list[list[int]] = [list(range(len(dataset)))]
    for trait in (_size, _digest, _whole):
        groups = [alike for group in groups for alike in _alike(dataset, group, trait)]
    return groups


def _alike(
    dataset: Dataset, rows: Iterable[int], trait: Callable[[Path], Hashable]
) -> list[list[int]]:
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row in rows:
        path = dataset.root / dataset.files[row]
        with suppress(OSError):  # a file that cannot be read is no copy: who decodes it says so
            groups[trait(path)].append(row)
    # Size 0: an empty file is no copy but damaged, and whoever decodes it says so.
    return [group for key, group in groups.items() if key and len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _digest(path: Path) -> bytes:
    return content(path).digest


def _whole(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _clashes(dataset: Dataset, rows: list[int]) -> int:
    """How many pairs of `rows` are of different classes."""
    counts = np.unique(dataset.labels[rows], return_counts=True)[1]
    return int(len(rows) ** 2 - (counts**2).sum()) // 2


def _contradiction(
    dataset: Dataset, rows: list[int], pairs: int, where: Callable[[int], str]
) -> str:
    labels = dataset.labels[rows]
    other = int(np.flatnonzero(labels != labels[0])[0])
    if labels[0] < dataset.train_classes <= labels[other]:
        places = "in training and in test"
    else:
        places = " and ".join(f"in class {dataset.classes[labels[at]]!r}" for at in (0, other))
    return (
        f"{where(rows[0])} and {where(rows[other])}: the same image, {places}."
        f" Expected each image in one class and on one side; {pairs} pairs are not."
    )
