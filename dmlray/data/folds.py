"""Class-disjoint folds of the training classes."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dmlray.data.dataset import Dataset
from dmlray.data.roles import Roles
from dmlray.errors import ConfigError, DataError

Kind = Literal["kfold", "mlrc", "seeded"]
MIN_CLASSES = 2  # to score or to train: with one class every ranking is correct


@dataclass(frozen=True, eq=False)
class Subset:
    """Some classes of a data set, relabelled.

    `rows` (n,) int64 into `Dataset.files`, ascending; `labels` (n,) int64 in [0, C);
    `classes` (C,) int64, the data set's ids in the order of the new labels; `roles` (n,).
    `categories` (n,) text, None without them.
    """

    rows: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    roles: Roles | None = None
    categories: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> "Subset":
        """The first images, without roles."""
        return Subset(self.rows[:count], self.labels[:count], self.classes)


def select(dataset: Dataset, class_ids: np.ndarray) -> Subset:
    """Select the classes `class_ids` (C,) of a data set and relabel them in this order."""
    class_ids = np.asarray(class_ids, dtype=np.int64)
    label_of = np.full(len(dataset.classes), -1, dtype=np.int64)
    label_of[class_ids] = np.arange(len(class_ids))
    labels = label_of[dataset.labels]
    rows = np.flatnonzero(labels >= 0)
    categories = None if dataset.categories is None else dataset.categories[rows]
    roles = dataset.roles and dataset.roles.of(rows)
    return Subset(rows, labels[rows], class_ids, roles, categories)


def train_subset(dataset: Dataset) -> Subset:
    """Select all training classes."""
    return select(dataset, np.arange(dataset.train_classes))


def split(dataset: Dataset, kind: Kind, folds: int, seed: int = 0) -> list[tuple[Subset, Subset]]:
    """Split the training classes into (train, validation) subsets, one pair per fold.

    Args:
        dataset: Images with their classes; those of the test side are left out.
        kind: `kfold`, `mlrc` or `seeded`: the functions below.
        folds: Number of folds.
        seed: Seed of `seeded`, in [0, 2**32); the other kinds ignore it.

    Raises:
        ConfigError: If there are fewer than 2 folds or more folds than training classes.
    """
    classes = dataset.train_classes
    if not 2 <= folds <= classes:
        problem = f"{folds} folds of {classes} classes. Allowed: 2 to {classes} folds."
        if classes < 2:
            problem = f"{classes} training class cannot be split. Allowed: 2 classes or more."
        raise ConfigError("protocol.folds", [problem])
    class_ids = np.arange(classes)
    return [
        (select(dataset, np.setdiff1d(class_ids, held_out)), select(dataset, held_out))
        for held_out in _KINDS[kind](classes, folds, seed)
    ]


def check(
    dataset: Dataset, kind: Kind, folds: int, seed: int = 0, used: Iterable[int] | None = None
) -> None:
    """Reject folds whose scores would be meaningless.

    Args:
        dataset: Images with their classes.
        kind: As in `split`.
        folds: Number of folds.
        seed: Seed of `seeded`.
        used: Indices of the folds that will be held out; None: all.

    Raises:
        ConfigError: If such a fold has one class, or one image per class, or leaves one class to
            train; lists the allowed numbers of folds.
    """
    classes = dataset.train_classes
    parts = _KINDS[kind](classes, folds, seed)
    for number in range(folds) if used is None else used:
        if problem := _problem(dataset, parts[number]):
            text = f"{folds} folds of {classes} classes ({kind}): fold {number} {problem}"
            allowed = _listed(suitable(dataset, kind, seed))
            raise ConfigError("protocol.folds", [f"{text}. Allowed: {allowed}"])


def suitable(dataset: Dataset, kind: Kind, seed: int = 0, most: int = 1000) -> list[int]:
    """Allowed numbers of folds up to `most`: each part has 2 classes, and a query with a match."""
    classes = dataset.train_classes
    matched, in_gallery = (
        _classes(dataset, dataset.with_match),
        _classes(dataset, _gallery(dataset)),
    )
    return [
        folds
        for folds in range(2, min(most, classes // MIN_CLASSES) + 1)
        if all(
            matched[held_out].any() and in_gallery[held_out].sum() >= MIN_CLASSES
            for held_out in _KINDS[kind](classes, folds, seed)
        )
    ]


def check_sides(dataset: Dataset, *, halved: bool, tested: bool = True) -> None:
    """Check that the training and the test classes suffice for meaningful scores.

    Args:
        dataset: Images with their classes.
        halved: The first half of the classes trains; only for the message.
        tested: Whether there are to be test classes.

    Raises:
        DataError: If they do not, such as a single class.
    """
    train, classes = dataset.train_classes, len(dataset.classes)
    test_flaw = flaw(dataset, np.arange(train, classes)) if tested else None
    problem = f"the test side {test_flaw}" if test_flaw else None
    if train < MIN_CLASSES:
        problem = f"the training side has {train or 'no'} class"
    if problem:
        allowed = f"at least {MIN_CLASSES} classes{' on each side' if tested else ''}"
        half = "; the first half of them trains" if halved else ""
        raise DataError(f"{dataset.root}: {problem}. Allowed: {allowed}{half}")


def flaw(dataset: Dataset, class_ids: np.ndarray) -> str | None:
    """Return why retrieval scores of the classes `class_ids` (C,) would be meaningless, if so."""
    if not len(class_ids):
        return "has no class"
    if not _classes(dataset, dataset.with_match)[class_ids].any():
        listed = _named(dataset, class_ids)
        if dataset.roles:
            return f"has no query with a match in its gallery ({listed})"
        return f"has one image of each class ({listed}), so no query has a match"
    found = class_ids[_classes(dataset, _gallery(dataset))[class_ids]]
    if len(found) < MIN_CLASSES:
        where = " in its gallery" if dataset.roles else ""
        return f"has one class{where} ({_named(dataset, found)}), which always scores 100 %"
    return None


def _gallery(dataset: Dataset) -> np.ndarray:
    """(N,) bool: which images are searched in."""
    return dataset.roles.gallery if dataset.roles else np.ones(len(dataset), dtype=bool)


def _classes(dataset: Dataset, images: np.ndarray) -> np.ndarray:
    """(C,) bool: which classes have one of the `images` (N,)."""
    return np.bincount(dataset.labels[images], minlength=len(dataset.classes)) > 0


def _named(dataset: Dataset, class_ids: np.ndarray) -> str:
    names = [repr(dataset.classes[class_id]) for class_id in class_ids]
    return ", ".join([*names[:3], *(["..."] if len(names) > 3 else [])])


def _problem(dataset: Dataset, held_out: np.ndarray) -> str | None:
    rest = dataset.train_classes - len(held_out)
    too_few = f"leaves {rest} class to train" if rest < MIN_CLASSES else None
    return flaw(dataset, held_out) or too_few


def _listed(numbers: Sequence[int]) -> str:
    """Format numbers of folds for a message."""
    if not numbers:
        return (
            "no number of folds of these classes: each fold needs 2 classes, and 2 images of one "
            "of them. protocol.selection=last trains without folds"
        )
    first, last = numbers[0], numbers[-1]
    if len(numbers) > 2 and last - first + 1 == len(numbers):
        return f"{first} to {last} folds"
    more = " ..." if len(numbers) > 6 else ""
    return f"{' or '.join(map(str, numbers[:6]))}{more} folds"


def kfold(classes: int, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Hold out each of `folds` near-equal ranges of class ids once, unshuffled."""
    return np.array_split(np.arange(classes), folds)


def mlrc(classes: int, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Hold out equal ranges of class ids: the last range first, then those before each boundary.

    A few classes are never held out if `folds` does not divide `classes`.
    Source: Musgrave et al., ECCV 2020, arXiv 2003.08505, as in powerful-benchmarker: fold i
    trains from class floor(i C / folds) on, wrapping around; the floor(C / folds) classes before
    that class are held out.
    """
    size = classes // folds
    ends = [classes, *(fold * classes // folds for fold in range(1, folds))]
    return [np.arange(end - size, end) for end in ends]


def seeded(classes: int, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Hold out each of `folds` near-equal random parts of the class ids once."""
    # Unlike Generator, RandomState is frozen: every NumPy version draws the same folds.
    order = np.random.RandomState(seed).permutation(classes)
    return [np.sort(part) for part in np.array_split(order, folds)]


def fingerprint(dataset: Dataset, subset: Subset) -> str:
    """Short hash of the names of a subset's classes and files; equal subsets have equal hashes."""
    digest = hashlib.sha256()
    for class_id in subset.classes:
        digest.update(f"{dataset.classes[class_id]}\n".encode("utf-8", "surrogateescape"))
    for row, label in zip(subset.rows, subset.labels, strict=True):
        digest.update(f"{label}\0{dataset.files[row]}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]


_KINDS: dict[Kind, Callable[[int, int, int], list[np.ndarray]]] = {
    "kfold": kfold,
    "mlrc": mlrc,
    "seeded": seeded,
}
