"""Which rows make a batch."""

import numpy as np

from dmlray.errors import ConfigError


def shuffled(
    count: int, batch_size: int, rng: np.random.Generator, drop_last: bool = True
) -> list[np.ndarray]:
    """All rows in random order, cut into batches; a batch larger than all is all, once."""
    order = rng.permutation(count)
    if count <= batch_size:
        return [order]
    end = count - count % batch_size if drop_last else count
    return [order[start : start + batch_size] for start in range(0, end, batch_size)]


def per_class(
    labels: np.ndarray, batch_size: int, images_per_class: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Batches of distinct classes with `images_per_class` images each, as many as fit the images.

    Images of a class do not repeat within a batch unless the class has too few.

    Raises:
        ConfigError: If the batch does not divide, or asks for more classes than there are.
    """
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if batch_size % images_per_class or batch_size // images_per_class > len(members):
        most = len(members) * images_per_class
        problem = (
            f"{batch_size} is not allowed. Allowed: a multiple of {images_per_class} up to {most}"
        )
        raise ConfigError("data.batch_size", [problem])

    def draw(rows: np.ndarray) -> np.ndarray:
        return rng.choice(rows, images_per_class, replace=len(rows) < images_per_class)

    batches = []
    for _ in range(max(1, len(labels) // batch_size)):
        classes = rng.choice(len(members), batch_size // images_per_class, replace=False)
        batches.append(np.concatenate([draw(members[label]) for label in classes]))
    return batches
