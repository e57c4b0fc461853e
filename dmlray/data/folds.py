"""Which classes train and which validate; classes of two sides never meet."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dmlray.data.catalogue import Dataset
from dmlray.errors import ConfigError

Kind = Literal["kfold"]


@dataclass(frozen=True)
class Subset:
    """Some classes of a data set.

    rows (n,) index Dataset.files, labels (n,) count from 0 within the subset, classes (C,) are
    the data set's own numbers.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: np.ndarray


def select(dataset: Dataset, classes: np.ndarray) -> Subset:
    """All images of `classes`, relabelled by their order there."""
    position = np.full(len(dataset.classes), -1)
    position[classes] = np.arange(len(classes))
    rows = np.flatnonzero(position[dataset.labels] >= 0)
    return Subset(rows, position[dataset.labels[rows]], np.asarray(classes))


def train_subset(dataset: Dataset) -> Subset:
    """All training classes."""
    return select(dataset, np.arange(dataset.train_classes))


def split(dataset: Dataset, kind: Kind, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, validation) class numbers of each fold of the training classes."""
    classes = np.arange(dataset.train_classes)
    match kind:
        case "kfold":
            return kfold(classes, folds)


def kfold(classes: np.ndarray, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Unshuffled folds: each contiguous part validates once, the others train.

    Raises:
        ConfigError: For fewer than 2 folds or more folds than classes.
    """
    if not 2 <= folds <= len(classes):
        problem = f"{folds} folds of {len(classes)} training classes. Allowed: 2 to {len(classes)}"
        raise ConfigError("protocol.folds", [problem])
    parts = np.array_split(classes, folds)
    return [(np.concatenate(parts[:k] + parts[k + 1 :]), part) for k, part in enumerate(parts)]


def split_fingerprint(dataset: Dataset, subset: Subset) -> str:
    """Changes when the subset's classes or images do."""
    digest = hashlib.sha256()
    for row, label in zip(subset.rows, subset.labels, strict=True):
        digest.update(f"{dataset.files[row]}\0{label}\n".encode())
    return digest.hexdigest()[:16]
