"""Triplet loss with the semi-hard negatives of a batch, of given distances.

B batch.
"""

import torch
from torch import Tensor


def semihard_triplet(
    distances: Tensor, mined_on: Tensor, labels: Tensor, margin: float = 0.2
) -> Tensor:
    """Triplet loss of distances (B, B) and labels (B,): a scalar, in squared units of distance.

    Source: Schroff et al., CVPR 2015, arXiv 1503.03832, eq. 2 and section 3.2; a mean over all
    pairs of a class that have a negative.

    Args:
        distances: Distances (B, B) between the images.
        mined_on: Distances (B, B) for mining negatives; no gradient flows through them.
        labels: Labels (B,).
        margin: Margin between the squared distances.
    """
    same = labels[:, None] == labels
    diagonal = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    chosen = _nearest_beyond(mined_on.detach(), same)
    squares = distances.square()
    costs = (squares - squares.gather(1, chosen) + margin).relu()
    pairs = same & ~diagonal & ~same.all(1, keepdim=True)
    return costs.where(pairs, 0).sum() / pairs.sum().clamp(min=1)


def _nearest_beyond(distances: Tensor, same: Tensor) -> Tensor:
    """For anchor i and image j, the nearest negative of i beyond j, else its farthest: (B, B)."""
    ordered, order = distances.masked_fill(same, torch.inf).sort(1)
    beyond = torch.searchsorted(ordered, distances.contiguous(), right=True)
    negatives = (~same).sum(1, keepdim=True)
    return order.gather(1, beyond.minimum(negatives - 1).clamp(min=0))
