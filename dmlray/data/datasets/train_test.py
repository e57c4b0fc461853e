"""The two sides of a user's own images: the classes that train and the classes that test."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from dmlray.data.dataset import Dataset, from_ordered, half
from dmlray.data.datasets import duplicates
from dmlray.errors import DataError

Split = Literal["classes", "given"]  # the first half of the classes trains, or as the user laid out
Keep = Callable[[Dataset], Dataset]  # takes images out of a data set as it was listed
Images = Mapping[str, Sequence[str]]  # class -> files relative to the root
GIVEN = "data.split=given (as an argument: `split`)"

_SIDES = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation"), "val")


def everything(dataset: Dataset) -> Dataset:
    """Take no image out."""
    return dataset


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


def side(name: str) -> str | None:
    """Side that a folder or a value of a column split names: train, test, val, or none."""
    return _SIDES.get(name.lower())


def assign(parts: Mapping[str, Images], shown: str) -> tuple[Images, Images, list[str]]:
    """Let the parts named train and test be what they say; without a test, val is tested.

    Args:
        parts: Images by the name that the user gave them.
        shown: Format of such a name in a remark.

    Returns:
        Images that train, images that test, and remarks on what is otherwise.
    """
    tested = "test" if any(side(name) == "test" for name in parts) else "val"
    train, test = (_merged(parts, wanted) for wanted in ("train", tested))
    remarks = []
    for name, images in parts.items():
        if side(name) == tested == "val":
            remarks.append(f"{shown.format(name)} is the test side, as there is no other")
        elif side(name) not in ("train", tested) and images:
            count = f"{sum(map(len, images.values()))} images of {len(images)} classes"
            remarks.append(f"{shown.format(name)}: {count} are not used")
    return train, test, remarks


def examine(dataset: Dataset, where: Callable[[int], str]) -> tuple[Dataset, tuple[str, ...]]:
    """Add the remarks that every score of these images must carry.

    Args:
        where: Tells where the user finds a row of the data set.

    Returns:
        The data set, and why a score of it would mean nothing: images that contradict each other
        or are alone.
    """
    remarks, problems = list(dataset.remarks), []
    for check in (_closed_set, _lone, duplicates.check):
        try:
            remarks += filter(None, [check(dataset, where)])
        except DataError as problem:
            problems.append(str(problem))
    return replace(dataset, remarks=tuple(remarks)), tuple(problems)


def natural(label: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort "9" before "10": a run of digits counts as a number, here by its length first."""
    parts = enumerate(re.split("([0-9]+)", label))
    numbers = [(len(part.lstrip("0")), part.lstrip("0")) if at % 2 else part for at, part in parts]
    return numbers, label


def _merged(parts: Mapping[str, Images], wanted: str) -> Images:
    images: dict[str, list[str]] = {}
    for name, part in parts.items():
        if side(name) == wanted:
            for label, files in part.items():
                images.setdefault(label, []).extend(files)
    return images


def _closed_set(dataset: Dataset, where: Callable[[int], str]) -> str | None:
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
