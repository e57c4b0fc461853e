"""Batch samplers: lists of positions (B,) int64 into a subset."""

from collections.abc import Iterable
from typing import Literal

import numpy as np

from dmlray.errors import ConfigError

Replacement = Literal["none", "images", "classes"]  # what a batch may repeat


def epoch_batches(
    labels: np.ndarray,
    batch_size: int,
    images_per_class: int | None,
    replacement: Replacement,
    seed: int,
    epoch: int,
) -> list[np.ndarray]:
    """Batches of an epoch of a subset with labels (N,), a function of (seed, epoch)."""
    rng = np.random.default_rng([seed, epoch])
    if images_per_class is None:
        return shuffled(len(labels), batch_size, rng)
    return per_class(labels, batch_size, images_per_class, rng, replacement)


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
) -> list[np.ndarray]:
    """Fill each batch with `images_per_class` images of each of several classes.

    Without replacement the classes are distinct, and so are the images of a class that has
    enough of them. `images` may repeat an image (RCDML's and Proxy-Anchor's sampler), `classes`
    may also repeat a class (DCML's, datasampler/class_random_sampler.py:28-35).

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
                for label in rng.choice(len(members), groups, replace=repeat)
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
