"""Batch samplers: lists of positions (B,) int64 into a subset."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dmlray.data.folds import Subset
from dmlray.errors import ConfigError

Replacement = Literal["none", "images", "classes"]  # what a batch may repeat
Draw = Callable[[int], np.ndarray]  # number of classes -> distinct classes


@dataclass(frozen=True)
class Sampling:
    """Which images form a training batch, as a function of (seed, epoch) alone.

    Args:
        images_per_class: None shuffles; else each batch has this many images of each class in it.
        replacement: What such a batch may repeat, see `per_class`.
        views: Crops of each image; more than one make images (B, V, 3, S, S).
        categories: Super-classes from which each batch takes its classes, see `few_categories`;
            None: from all.
    """

    batch_size: int
    images_per_class: int | None = None
    seed: int = 0
    replacement: Replacement = "none"
    views: int = 1
    categories: int | None = None


def epoch_batches(subset: Subset, sampling: Sampling, epoch: int) -> list[np.ndarray]:
    """Batches of an epoch of a subset, a function of (seed, epoch).

    Raises:
        ConfigError: As `per_class` and `class_categories` do.
    """
    rng = np.random.default_rng([sampling.seed, epoch])
    size, each = sampling.batch_size, sampling.images_per_class
    if each is None:
        return shuffled(len(subset), size, rng)
    if sampling.categories is None:
        return per_class(subset.labels, size, each, rng, sampling.replacement)
    draw = few_categories(class_categories(subset), sampling.categories, rng)
    return per_class(subset.labels, size, each, rng, draw=draw)


def class_categories(subset: Subset) -> np.ndarray:
    """Category (C,) int64 of each class.

    Raises:
        ConfigError: If the images have no categories, or those of a class have several.
    """
    if subset.categories is None:
        allowed = "Allowed: null, or a data set with a column category"
        raise ConfigError("data.categories", [f"the images have no categories. {allowed}"])
    numbers = np.unique(subset.categories, return_inverse=True)[1]
    of_class = np.zeros(len(subset.classes), dtype=np.int64)
    of_class[subset.labels] = numbers
    mixed = np.flatnonzero(of_class[subset.labels] != numbers)
    if len(mixed):
        found = np.unique(subset.categories[subset.labels == subset.labels[mixed[0]]])
        listed = ", ".join(map(repr, found.tolist()))
        problem = f"the images of a class have {len(found)} categories ({listed})"
        raise ConfigError("data.categories", [f"{problem}. Allowed: one for all images of a class"])
    return of_class


def few_categories(categories: np.ndarray, count: int, rng: np.random.Generator) -> Draw:
    """Draw classes from `count` random categories, for batches of hard negatives.

    A category is drawn in proportion to its classes, so that small ones are not repeated more
    often. If the categories drawn have too few classes, more are drawn.

    Args:
        categories: Category (C,) int64 of each class, from 0.
        count: Categories of a batch.
        rng: Source of the draws.
    """
    sizes = np.bincount(categories)

    def draw(classes: int) -> np.ndarray:
        order = rng.choice(len(sizes), len(sizes), replace=False, p=sizes / sizes.sum())
        enough = int(np.searchsorted(sizes[order].cumsum(), classes)) + 1
        allowed = np.flatnonzero(np.isin(categories, order[: max(count, enough)]))
        return rng.choice(allowed, classes, replace=False)

    return draw


def can_pair(
    labels: np.ndarray, batch_size: int, images_per_class: int | None, replacement: Replacement
) -> bool:
    """Whether any batch of images with labels (N,) can hold two images of a class."""
    if images_per_class is None:
        return batch_size > 1 and bool(np.bincount(labels).max() > 1)
    return images_per_class > 1 or (replacement == "classes" and batch_size > 1)


def without_pairs(labels: np.ndarray, batches: Iterable[np.ndarray]) -> int:
    """Number of batches without two images of a class."""
    return sum(len(np.unique(labels[batch])) == len(batch) for batch in batches)


def shuffled(
    count: int, batch_size: int, rng: np.random.Generator, drop_last: bool = True
) -> list[np.ndarray]:
    """Shuffle all positions into batches; drop a short last batch unless it is the only one."""
    order = rng.permutation(count)
    batches = [order[start : start + batch_size] for start in range(0, count, batch_size)]
    short = len(batches) > 1 and len(batches[-1]) < batch_size
    return batches[:-1] if drop_last and short else batches


def per_class(
    labels: np.ndarray,
    batch_size: int,
    images_per_class: int,
    rng: np.random.Generator,
    replacement: Replacement = "none",
    draw: Draw | None = None,
) -> list[np.ndarray]:
    """Fill each batch with `images_per_class` images of each of several classes.

    Without replacement the classes are distinct, and so are the images of a class that has
    enough of them. `images` may repeat an image (RCDML's and Proxy-Anchor's sampler), `classes`
    may also repeat a class (DCML's, datasampler/class_random_sampler.py:28-35). `draw` chooses
    distinct classes; by default all are equally likely.

    Raises:
        ConfigError: If the batch size is not a multiple, or needs more classes than there are.
    """
    if replacement == "images":
        seed = int(rng.integers(2**32))
        return balanced(labels, batch_size, images_per_class, np.random.RandomState(seed))
    members, repeat = _members(labels), replacement == "classes"
    groups = _groups(len(members), batch_size, images_per_class, repeat)
    return [
        np.concatenate(
            [
                rng.choice(
                    members[label],
                    images_per_class,
                    repeat or len(members[label]) < images_per_class,
                )
                for label in (draw(groups) if draw else rng.choice(len(members), groups, repeat))
            ]
        )
        for _ in range(max(1, len(labels) // batch_size))
    ]


def balanced(
    labels: np.ndarray, batch_size: int, images_per_class: int, random: np.random.RandomState
) -> list[np.ndarray]:
    """Draw distinct classes for each batch and images of each with replacement.

    Source: RCDML and Proxy-Anchor, dataset/sampler.py:33-43, with identical random draws.
    """
    members = _members(labels)
    groups = _groups(len(members), batch_size, images_per_class)
    return [
        np.concatenate(
            [
                random.permutation(random.choice(members[label], images_per_class))
                for label in random.choice(len(members), groups, replace=False)
            ]
        )
        for _ in range(max(1, len(labels) // batch_size))
    ]


def _members(labels: np.ndarray) -> list[np.ndarray]:
    """Positions of the images of each class."""
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.cumsum(np.bincount(labels))[:-1])


def _groups(classes: int, batch_size: int, images_per_class: int, repeat: bool = False) -> int:
    """Number of classes per batch."""
    groups, rest = divmod(batch_size, images_per_class)
    if rest or not groups:
        problem = (
            f"{batch_size} is not divisible by data.images_per_class={images_per_class}."
            f" Allowed: a multiple of {images_per_class}."
        )
        raise ConfigError("data.batch_size", [problem])
    if groups > classes and not repeat:
        problem = (
            f"{batch_size} needs {groups} classes of {images_per_class} images, and {classes}"
            f" train. Allowed: at most {classes * images_per_class}."
        )
        raise ConfigError("data.batch_size", [problem])
    return groups
