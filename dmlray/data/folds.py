"""Which classes a learner may see: class-disjoint parts of the training classes."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dmlray.data.dataset import Dataset
from dmlray.errors import ConfigError

Kind = Literal["kfold"]
Part = tuple[np.ndarray, np.ndarray]  # ids of the classes that train, and of those held out


@dataclass(frozen=True, eq=False)
class Subset:
    """Some classes of a data set, relabelled.

    `rows` (n,) int64 into `Dataset.files`, ascending; `labels` (n,) int64 in [0, C);
    `classes` (C,) int64, the data set's ids in the order of the new labels.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


def select(dataset: Dataset, class_ids: np.ndarray) -> Subset:
    """Keep the classes `class_ids` (C,) of a data set and number them in this order."""
    class_ids = np.asarray(class_ids, dtype=np.int64)
    label_of = np.full(len(dataset.classes), -1, dtype=np.int64)
    label_of[class_ids] = np.arange(len(class_ids))
    labels = label_of[dataset.labels]
    rows = np.flatnonzero(labels >= 0)
    return Subset(rows, labels[rows], class_ids)


def train_subset(dataset: Dataset) -> Subset:
    """All classes that may be learned from."""
    return select(dataset, np.arange(dataset.train_classes))


def split(dataset: Dataset, kind: Kind, folds: int) -> list[tuple[Subset, Subset]]:
    """Cut the training classes into (train, validation) subsets, one pair per fold."""
    parts = _KINDS[kind](np.arange(dataset.train_classes), folds)
    return [(select(dataset, train), select(dataset, held_out)) for train, held_out in parts]


def kfold(classes: np.ndarray, folds: int) -> list[Part]:
    """Hold out each of `folds` equal runs of `classes` (C,) once, unshuffled.

    Raises:
        ConfigError: If there are fewer than 2 folds or more folds than classes.
    """
    if not 2 <= folds <= len(classes):
        problem = f"{folds} folds of {len(classes)} classes. Allowed: 2 to {len(classes)} folds."
        raise ConfigError("protocol.folds", [problem])
    return [(np.setdiff1d(classes, part), part) for part in np.array_split(classes, folds)]


def fingerprint(dataset: Dataset, subset: Subset) -> str:
    """Short hash of the names of a subset's classes and files: two equal splits are the same."""
    digest = hashlib.sha256()
    for class_id in subset.classes:
        digest.update(f"{dataset.classes[class_id]}\n".encode("utf-8", "surrogateescape"))
    for row, label in zip(subset.rows, subset.labels, strict=True):
        digest.update(f"{label}\0{dataset.files[row]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


_KINDS: dict[Kind, Callable[[np.ndarray, int], list[Part]]] = {"kfold": kfold}
