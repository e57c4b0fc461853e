"""Triplet sampling of DCML's heads, and the margin loss of triplets.

All draws stay on the device and have a fixed size; impossible triplets are marked as unusable.
B batch, T triplets, D embedding.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dmlray.losses.cosine import pairwise_cosines
from dmlray.losses.fast_moco import inverse_density
from dmlray.losses.margin import Count, margin_loss

Sharing = Literal["random", "standard", "full"]

_ANTIPODE = 2 - 1e-4  # just below the largest distance on the sphere, whose density is 0


class Triplets(NamedTuple):
    """Rows (T,) of the batch; `usable` (T,) marks the triplets that exist."""

    anchors: Tensor
    positives: Tensor
    negatives: Tensor
    usable: Tensor


def margin_cost(
    units: Tensor, triplets: Triplets, boundaries: Tensor, margin: float, count: Count
) -> Tensor:
    """Margin loss of unit rows (B, D) with boundaries (T,): a scalar, in units of distance."""
    anchors = units[triplets.anchors]
    near = _distances(anchors, units[triplets.positives])
    far = _distances(anchors, units[triplets.negatives])
    return margin_loss(near, far, boundaries, triplets.usable, margin, count)


def by_distance(units: Tensor, labels: Tensor, nearest: float) -> Triplets:
    """Draw one triplet per anchor: any positive, and a negative uniform over distances.

    Source: wzzheng/DCML batchminer/distance.py.
    """
    same, rows = labels[:, None] == labels, torch.arange(len(labels), device=labels.device)
    partners = same & (rows[:, None] != rows)
    positives = draw(partners.new_zeros(same.shape, dtype=units.dtype), partners)
    negatives = draw(_log_weights(units, nearest), ~same)
    return Triplets(rows, positives, negatives, partners.any(1) & ~same.all(1))


def class_shared(units: Tensor, labels: Tensor, sharing: Sharing, nearest: float) -> Triplets:
    """Draw one triplet per anchor with a positive of another class, for shared features.

    `random` shuffles the labels; else the three are of three classes, and the positive is drawn
    uniformly (`standard`) or by distance as well (`full`).
    Source: wzzheng/DCML batchminer/random_distance.py and shared_neg_distance.py.
    """
    if sharing == "random":
        shuffled = labels[torch.randperm(len(labels), device=labels.device)]
        return by_distance(units, shuffled, nearest)
    differ, rows = labels[:, None] != labels, torch.arange(len(labels), device=labels.device)
    weights = _log_weights(units, nearest)
    negatives = draw(weights, differ)
    third = differ & differ[negatives]
    positives = draw(weights if sharing == "full" else torch.zeros_like(weights), third)
    return Triplets(rows, positives, negatives, third.any(1))


def intra_class(labels: Tensor) -> Triplets:
    """Draw B triplets within one class each, uniformly and with replacement.

    With few images per class the three are often the same image, as in the authors' code.
    Source: wzzheng/DCML batchminer/intra_random.py.
    """
    same = labels[:, None] == labels
    uniform = torch.zeros(same.shape, device=labels.device)
    uniform_over_classes = -same.sum(0).log().expand(same.shape)
    anchors = draw(uniform_over_classes, torch.ones_like(same))
    members = same[anchors]
    usable = torch.ones_like(anchors, dtype=torch.bool)
    return Triplets(anchors, draw(uniform, members), draw(uniform, members), usable)


def draw(log_weights: Tensor, allowed: Tensor) -> Tensor:
    """Draw one allowed column per row of (B, B), by weight; 0 if none is allowed: (B,)."""
    gumbel = -torch.empty_like(log_weights).exponential_().log()
    return (log_weights + gumbel).masked_fill(~allowed, -torch.inf).argmax(1)


def _log_weights(units: Tensor, nearest: float) -> Tensor:
    """Log weight (B, B) of each row as a negative of another: inverse density of the distance."""
    cosines = pairwise_cosines(units, units).detach()
    distances = (2 - 2 * cosines).clamp(min=0).sqrt().clamp(nearest, _ANTIPODE)
    return inverse_density(distances, units.shape[1])


def _distances(rows: Tensor, others: Tensor) -> Tensor:
    return ((rows - others).square().sum(1) + 1e-8).sqrt()
