"""RCDML's formulas: corrected proxies, and constraints on proxies and on images of a class.

Source: Zhang et al., Appl. Intell. 2024, doi 10.1007/s10489-024-05425-x; only the abstract of the
paper was available, so the formulas follow Monalissaa/RCDML_pytorch, code/losses.py.
Departs: no loop over classes and no label-dependent sizes, to avoid device synchronisation: each
image has a column for its class, and only the first column of a class is counted.
B batch, C classes, D embedding, K columns: B if absent classes are ignored, else C.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from dmlray.losses.cosine import at_least_float32, pairwise_cosines, unit_rows
from dmlray.losses.proxy_anchor import log_one_plus_sum_exp

Absent = Literal["zero", "raw"]


class Columns(NamedTuple):
    """proxies (K, D) of classes (K,); `counted` (K,) marks one column of each class."""

    proxies: Tensor
    classes: Tensor
    counted: Tensor


def corrected_proxies(
    embeddings: Tensor, labels: Tensor, proxies: Tensor, mix: float, absent: Absent = "zero"
) -> Columns:
    """Move the proxies (C, D) of the batch's classes towards their embeddings (B, D), labels (B,).

    Source: code/losses.py, lines 58-70; nothing is detached or normalised.

    Args:
        embeddings: Embeddings (B, D) of the batch.
        labels: Labels (B,) in [0, C).
        proxies: Proxies (C, D) of all classes.
        mix: Share of the embeddings in a corrected proxy, unitless.
        absent: Classes without an image are left out (zero) or keep their proxies (raw).
    """
    embeddings, proxies = at_least_float32(embeddings), at_least_float32(proxies)
    own = proxies.index_select(0, labels)  # (B, D)
    with torch.autocast(labels.device.type, enabled=False):
        means = within_class_weights(embeddings, labels, own) @ embeddings  # (B, D)
    first = _first_of_class(labels)
    shift = mix * (means - own)
    if absent == "zero":
        return Columns(own + shift, labels, first)
    classes = torch.arange(len(proxies), device=labels.device)
    corrected = proxies.index_add(0, labels, shift * first[:, None])
    return Columns(corrected, classes, torch.ones_like(classes, dtype=torch.bool))


def within_class_weights(embeddings: Tensor, labels: Tensor, own: Tensor) -> Tensor:
    """Share (B, B) of each image j in the mean of the class of image i; rows sum to 1.

    The closer an image is to its proxy, a row of `own` (B, D), the larger its share.
    Source: code/losses.py, lines 58-65; the temperature is 1.
    """
    cosines = (unit_rows(embeddings) * unit_rows(own)).sum(1)  # (B,)
    return cosines.where(_same(labels), -torch.inf).softmax(1)


def pull_and_push(
    embeddings: Tensor, labels: Tensor, columns: Columns, classes: int, margin: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Pull and push terms of Proxy-Anchor over corrected proxies, in nats.

    Source: code/losses.py, lines 71-94. A class without a column has cosine 0 to each image: a
    constant in the push term, without gradient; its mean is over all `classes`.
    """
    cosines = pairwise_cosines(embeddings, columns.proxies)  # (B, K)
    own = labels[:, None] == columns.classes
    pull = log_one_plus_sum_exp(-alpha * (cosines - margin), own) * columns.counted
    push = log_one_plus_sum_exp(alpha * (cosines + margin), ~own) * columns.counted
    present = (own.any(0) & columns.counted).sum()
    missing = classes - columns.counted.to(push.dtype).sum()  # an integer in the dtype of push
    all_at_zero = alpha * margin + math.log(len(labels))
    constant = all_at_zero + math.log1p(math.exp(-all_at_zero))  # log(1 + B exp(alpha margin))
    return pull.sum() / present, (push.sum() + missing * constant) / classes


def proxy_relationship_loss(
    columns: Columns, reduction: Literal["sum", "mean_pairs"] = "sum"
) -> Tensor:
    """PRC: positive cosines between corrected proxies of two classes, over ordered pairs.

    Source: code/losses.py, lines 75-79; `mean_pairs` is an addition, independent of batch size.
    """
    cosines = pairwise_cosines(columns.proxies, columns.proxies).relu()  # (K, K)
    pairs = ~_same(columns.classes) & columns.counted & columns.counted[:, None]
    total = cosines.where(pairs, 0).sum()
    return total if reduction == "sum" else total / pairs.sum().clamp(min=1)


def sample_relationship_loss(
    embeddings: Tensor, labels: Tensor, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """SRC: exp(-cosine) of the least similar two images, over the classes with two or more.

    Source: code/losses.py, lines 96-102; `mean` is an addition, independent of batch size.
    """
    same = _same(labels)
    cosines = pairwise_cosines(embeddings, embeddings)  # (B, B)
    lowest_of_image = cosines.where(same, torch.inf).amin(1)  # (B,)
    lowest_of_class = lowest_of_image.where(same, torch.inf).amin(1)  # (B,), equal in a class
    counted = _first_of_class(labels) & (same.sum(1) > 1)
    total = (-lowest_of_class).exp().where(counted, 0).sum()
    return total if reduction == "sum" else total / counted.sum().clamp(min=1)


def _same(classes: Tensor) -> Tensor:
    """Mask of equal pairs of classes (K,): (K, K)."""
    return classes[:, None] == classes


def _first_of_class(labels: Tensor) -> Tensor:
    """Mask of the first image of each class in labels (B,): (B,)."""
    return ~_same(labels).tril(-1).any(1)
