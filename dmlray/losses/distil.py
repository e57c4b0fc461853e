"""Distillation: a student's embeddings resemble those of a teacher.

Source of the relational terms: Park et al., CVPR 2019, arXiv 1904.05068, eq. 4 to 9; as in their
code, lenscloth/RKD metric/loss.py, the mean is over all pairs and triplets, equal images included.
Departs: the student's rows have unit length, as they are compared; distances below 0.001 count as
0.001, and are computed from cosines, so that memory does not grow with the teacher's width.
B batch, D embedding, R width of the teacher.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dmlray.losses.cosine import pairwise_cosines, unit_rows

_NEAREST = 1e-6  # squared distance below which rounding errors would be differentiated


def cosine_term(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - cosine between rows (B, D) and their targets (B, D): a scalar in [0, 2]."""
    return 1 - (unit_rows(embeddings) * unit_rows(targets)).sum(1).mean()


def distance_term(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Huber loss between the distances within rows (B, D) and within targets (B, R): a scalar.

    Both are divided by their mean. Source: eq. 4 to 6.
    """
    student, teacher = _relative_distances(embeddings), _relative_distances(targets)
    return F.smooth_l1_loss(student, teacher)


def angle_term(embeddings: Tensor, targets: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles within all triplets: a scalar.

    Of rows (B, D) and of targets (B, R). Source: eq. 7 to 9.
    """
    return F.smooth_l1_loss(_angles(embeddings), _angles(targets))


def _relative_distances(rows: Tensor) -> Tensor:
    """Distances (B, B) of unit rows over the mean of those between two images."""
    cosines = pairwise_cosines(rows, rows)
    distances = _distances(cosines)
    pairs = len(rows) * (len(rows) - 1)
    return distances / (distances.sum() / max(1, pairs)).clamp(min=_NEAREST)


def _angles(rows: Tensor) -> Tensor:
    """Cosines (B, B, B) of the angle at row j between rows i and k, at [j, i, k]."""
    cosines = pairwise_cosines(rows, rows)
    divisors = _distances(cosines) + _identity(cosines)  # where i or k is j, the product is 0
    # (x_i - x_j) (x_k - x_j) of unit rows
    products = 1 + cosines[None] - cosines[:, :, None] - cosines[:, None, :]
    return products / (divisors[:, :, None] * divisors[:, None, :])


def _distances(cosines: Tensor) -> Tensor:
    """Distances (B, B) of unit rows with these cosines; exactly 0 on the diagonal."""
    apart = (2 - 2 * cosines).clamp(min=_NEAREST).sqrt()
    return apart * (1 - _identity(cosines))


def _identity(square: Tensor) -> Tensor:
    return torch.eye(len(square), device=square.device, dtype=square.dtype)
