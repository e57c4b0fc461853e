"""Split of a user's own images into training and test classes."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from dmlray.data.dataset import Dataset, from_ordered, half
from dmlray.data.datasets import duplicates, role_checks
from dmlray.errors import DataError

# The first half of the classes trains, or the user's split, or all classes.
Split = Literal["classes", "given", "all"]
Keep = Callable[[Dataset], Dataset]  # removes images from a listed data set
Images = Mapping[str, Sequence[str]]  # class -> files relative to the root
GIVEN = "data.split=given (as an argument: `split`)"

_SIDES = {"train": "train", "test": "test"} | dict.fromkeys(("val", "valid", "validation"), "val")


def everything(dataset: Dataset) -> Dataset:
    """Remove no image."""
    return dataset


def halves(images: Images) -> tuple[Images, Images]:
    """Split the classes: the first half, rounded up, trains, the rest tests."""
    classes = sorted(images, key=natural)
    first, second = classes[: half(len(classes))], classes[half(len(classes)) :]
    return {label: images[label] for label in first}, {label: images[label] for label in second}


def join(name: str, root: Path, train: Images, test: Images) -> Dataset:
    """Put the training classes first; a class in both becomes two of the same name."""
    classes = [
        (label, side[label]) for side in (train, test) for label in sorted(side, key=natural)
    ]
    return from_ordered(name, root, classes, len(train))


def all_train(dataset: Dataset) -> Dataset:
    """Make all classes training classes; a class in both train and test becomes one."""
    names = dataset.classes
    if len(set(names)) == len(names):
        return replace(dataset, train_classes=len(names))
    names = tuple(sorted(set(names), key=natural))
    number = {name: index for index, name in enumerate(names)}
    labels = np.array([number[name] for name in dataset.classes])[dataset.labels]
    order = np.array(sorted(range(len(labels)), key=lambda row: (labels[row], dataset.files[row])))
    return replace(
        dataset,
        files=tuple(dataset.files[row] for row in order),
        labels=labels[order],
        classes=names,
        train_classes=len(names),
        roles=dataset.roles and dataset.roles.of(order),
        categories=None if dataset.categories is None else dataset.categories[order],
    )


def side(name: str) -> str | None:
    """Map the name of a folder, or a value of the column split, to train, test, val or None."""
    return _SIDES.get(name.lower())


def assign(parts: Mapping[str, Images], shown: str) -> tuple[Images, Images, list[str]]:
    """Assign the parts named train and test; without test, val is the test set.

    Args:
        parts: Images by the user's name of the part.
        shown: Format of a name in a remark.

    Returns:
        Training images, test images, and remarks on other parts.
    """
    tested = "test" if any(side(name) == "test" for name in parts) else "val"
    train, test = (
        merged(images for name, images in parts.items() if side(name) == part)
        for part in ("train", tested)
    )
    remarks = []
    for name, images in parts.items():
        if side(name) == tested == "val":
            remarks.append(f"{shown.format(name)} is used as the test set, as there is no other")
        elif side(name) not in ("train", tested) and images:
            count = f"{sum(map(len, images.values()))} images of {len(images)} classes"
            remarks.append(f"{shown.format(name)}: {count} are not used")
    return train, test, remarks


def examine(dataset: Dataset, where: Callable[[int], str]) -> tuple[Dataset, tuple[str, ...]]:
    """Add the remarks for every score of these images, and collect problems.

    Args:
        dataset: Images as they were listed.
        where: Maps a row of the data set to its location for a message.

    Returns:
        The data set, and problems that make its scores meaningless: images that contradict each
        other, test classes with one image, or roles that leave nothing to retrieve.
    """
    remarks, problems = list(dataset.remarks), []
    for check in (_closed_set, _single, role_checks.check, duplicates.check):
        try:
            remarks += filter(None, [check(dataset, where)])
        except DataError as problem:
            problems.append(str(problem))
    return replace(dataset, remarks=tuple(remarks)), tuple(problems)


def natural(label: str) -> tuple[list[str | tuple[int, str]], str]:
    """Sort key with "9" before "10": digits compare as a number, by length first."""
    parts = enumerate(re.split("([0-9]+)", label))
    numbers = [(len(part.lstrip("0")), part.lstrip("0")) if at % 2 else part for at, part in parts]
    return numbers, label


def merged(parts: Iterable[Images]) -> Images:
    """All images of each class of the parts."""
    found: dict[str, list[str]] = {}
    for images in parts:
        for label, files in images.items():
            found.setdefault(label, []).extend(files)
    return found


def _closed_set(dataset: Dataset, where: Callable[[int], str]) -> str | None:
    """Remark on test classes that also train: their score is not one of unseen classes."""
    train, test = dataset.classes[: dataset.train_classes], dataset.classes[dataset.train_classes :]
    known = len(set(train) & set(test))
    return f"closed set: {known} of {len(test)} test classes also train" if known else None


def _single(dataset: Dataset, where: Callable[[int], str]) -> str | None:
    """Reject test classes with one image; for training classes with one image add a remark.

    With roles a test class may have one: see `role_checks`.
    """
    alone = np.flatnonzero(np.bincount(dataset.labels) == 1)  # class ids
    tested = alone[alone >= dataset.train_classes]
    alone = alone[alone < dataset.train_classes]
    if len(tested) and dataset.roles is None:
        row = int(np.flatnonzero(dataset.labels == tested[0])[0])
        raise DataError(
            f"{where(row)}: the only image of test class {dataset.classes[tested[0]]!r}, so there"
            " is none to retrieve. Expected at least 2 images of each test class;"
            f" {len(tested)} of {len(dataset.classes) - dataset.train_classes} have one."
        )
    if not len(alone):
        return None
    return f"{len(alone)} of {dataset.train_classes} training classes have one image, never a query"
