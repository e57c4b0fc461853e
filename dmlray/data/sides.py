"""The two sides of a user's own images: the classes that train and the classes that test."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from dmlray.data import duplicates
from dmlray.data.dataset import Dataset, from_ordered, half
from dmlray.errors import DataError

Split = Literal["classes", "given"]  # the first half of the classes trains, or as the user laid out
Images = Mapping[str, Sequence[str]]  # class -> files relative to the root


def halves(images: Images) -> tuple[Images, Images]:
    """Let the first half of the classes train, rounded up, and the rest test."""
    classes = sorted(images, key=natural)
    first, second = classes[: half(len(classes))], classes[half(len(classes)) :]
    return {label: images[label] for label in first}, {label: images[label] for label in second}


def join(name: str, root: Path, train: Images, test: Images) -> Dataset:
    """Put the training classes first; a class on both sides becomes two of the same name."""
    classes = [
        (label, side[label]) for side in (train, test) for label in sorted(side, key=natural)
    ]
    return from_ordered(name, root, classes, len(train))


def checked(dataset: Dataset, where: Callable[[int], str]) -> Dataset:
    """Add the remarks that every score of these images must carry.

    Args:
        where: Tells where the user finds a row of the data set.

    Raises:
        DataError: If a score would mean nothing: images that contradict each other or are alone.
    """
    found = [_closed_set(dataset), _lone(dataset, where), duplicates.check(dataset, where)]
    return replace(dataset, remarks=(*dataset.remarks, *filter(None, found)))


def natural(label: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort "9" before "10": a run of digits counts as a number, here by its length first."""
    parts = enumerate(re.split("([0-9]+)", label))
    numbers = [(len(part.lstrip("0")), part.lstrip("0")) if at % 2 else part for at, part in parts]
    return numbers, label


def _closed_set(dataset: Dataset) -> str | None:
    """Keep the score of classes that were learned from passing for one of unseen classes."""
    train, test = dataset.classes[: dataset.train_classes], dataset.classes[dataset.train_classes :]
    known = len(set(train) & set(test))
    return f"closed set: {known} of {len(test)} test classes also train" if known else None


def _lone(dataset: Dataset, where: Callable[[int], str]) -> str | None:
    """Refuse a test image that has no other of its class; a training image teaches even so."""
    alone = np.flatnonzero(np.bincount(dataset.labels) == 1)  # class ids
    tested = alone[alone >= dataset.train_classes]
    if len(tested):
        row = int(np.flatnonzero(dataset.labels == tested[0])[0])
        raise DataError(
            f"{where(row)}: the only image of test class {dataset.classes[tested[0]]!r}, so there"
            " is none to retrieve. Expected at least 2 images of each test class;"
            f" {len(tested)} of {len(dataset.classes) - dataset.train_classes} have one."
        )
    if not len(alone):
        return None
    return f"{len(alone)} of {dataset.train_classes} training classes have one image, never a query"
