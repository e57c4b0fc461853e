"""What a retrieval gets wrong: confused classes, and pairs of images whose labels look wrong.

Letters: N images, D dimensions, K neighbours, C classes.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dmlray.evaluation.neighbours import Neighbours

PERCENTILE = 99.9  # of the similarities within classes
_MOST_PER_CLASS = 2000  # images whose pairs are all looked at


class Confusion(NamedTuple):
    """Two classes, and how many images of either have their nearest neighbour in the other.

    `query` and `neighbour` are the most similar such pair.
    """

    first: int
    second: int
    images: int
    query: int
    neighbour: int


class Suspect(NamedTuple):
    """Two images of different classes that are more alike than nearly all pairs of one class."""

    first: int
    second: int
    similarity: float


def confusions(labels: np.ndarray, found: Neighbours) -> list[Confusion]:
    """Count misses among the nearest neighbours for each pair of classes, most frequent first.

    Args:
        labels: (N,) in [0, C).
        found: Neighbours (N, K) of each image.
    """
    nearest, values = found.indices[:, 0].numpy(), found.similarities[:, 0].numpy()
    pairs: dict[tuple[int, int], list[int]] = {}
    for query in np.flatnonzero(labels[nearest] != labels):
        ends = sorted((int(labels[query]), int(labels[nearest[query]])))
        pairs.setdefault((ends[0], ends[1]), []).append(int(query))
    rows = []
    for (first, second), queries in pairs.items():
        example = max(queries, key=lambda query: values[query])
        rows.append(Confusion(first, second, len(queries), example, int(nearest[example])))
    return sorted(rows, key=lambda row: -row.images)


def suspects(rows: Tensor, labels: np.ndarray, found: Neighbours) -> list[Suspect]:
    """Find neighbours of another class above the 99.9th percentile of similarities within classes.

    Such pairs are near-duplicates across classes, or one of their labels is wrong; most alike
    first, each pair once.

    Args:
        rows: Unit rows (N, D).
        labels: (N,).
        found: Neighbours (N, K); pairs beyond them are not found.
    """
    inside = [within for within in _within(rows, labels) if len(within)]
    if not inside:
        return []
    threshold = np.percentile(np.concatenate(inside), PERCENTILE)
    indices, values = found.indices.numpy(), found.similarities.numpy()
    other = (labels[indices] != labels[:, None]) & (values > threshold)
    pairs = {
        (min(int(query), int(indices[query, place])), max(int(query), int(indices[query, place]))):
        float(values[query, place])
        for query, place in np.argwhere(other)
    }  # fmt: skip
    return sorted((Suspect(*ends, value) for ends, value in pairs.items()), key=lambda s: -s[2])


def _within(rows: Tensor, labels: np.ndarray) -> Iterator[np.ndarray]:
    """Similarities of all pairs of each class; of the first images of a very large one."""
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        part = rows[torch.from_numpy(members[:_MOST_PER_CLASS])]
        upper = torch.triu_indices(len(part), len(part), 1)
        yield (part @ part.T)[upper[0], upper[1]].numpy()
