"""Margin loss with distance-weighted negatives, of given distances.

B batch, D embedding.
"""

import torch
from torch import Tensor


def weighted_margin(
    distances: Tensor,
    mined_on: Tensor,
    dim: int,
    labels: Tensor,
    boundaries: Tensor,
    margin: float = 0.2,
) -> Tensor:
    """Margin loss of distances (B, B) and labels (B,): a scalar, in units of distance.

    Source: Wu et al., ICCV 2017, arXiv 1706.07567, eq. 4 and 5; one negative is drawn for each
    pair of a class, and the mean is over the triplets with non-zero loss.

    Args:
        distances: Distances (B, B) between the images.
        mined_on: Distances (B, B) of unit vectors in D = `dim` dimensions for drawing negatives;
            no gradient flows through them.
        dim: Dimensions D of the embedding.
        labels: Labels (B,).
        boundaries: Boundary distance (B,) between positives and negatives of each image's class.
        margin: Slack on either side of the boundary.
    """
    same = labels[:, None] == labels
    diagonal = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    probabilities = negative_probabilities(mined_on.detach(), ~same, dim)
    drawn = torch.multinomial(probabilities, len(labels), replacement=True)  # (B, B)
    pull = (distances - boundaries[:, None] + margin).relu()
    push = (boundaries[:, None] - distances.gather(1, drawn) + margin).relu()
    pairs = same & ~diagonal & ~same.all(1, keepdim=True)
    costs = (pull + push).where(pairs, 0)
    return costs.sum() / (costs > 0).sum().clamp(min=1)


def negative_probabilities(
    distances: Tensor, negatives: Tensor, dim: int, nearest: float = 0.5, farthest: float = 1.4
) -> Tensor:
    """Probability (B, B) of each image as negative of each anchor; rows sum to 1.

    The inverse density of distances between points on the unit sphere in `dim` dimensions. An
    anchor without a negative nearer than `farthest` draws uniformly from all.
    """
    clamped = distances.clamp(nearest, farthest)
    log_density = (dim - 2) * clamped.log() + (dim - 3) / 2 * (1 - clamped.square() / 4).log()
    near = negatives & (distances < farthest)
    allowed = near | (negatives & ~near.any(1, keepdim=True))
    allowed = allowed | ~allowed.any(1, keepdim=True)  # one class only: drawn, not counted
    log_weights = (-log_density).where(near, 0).where(allowed, -torch.inf)
    return log_weights.softmax(1)
