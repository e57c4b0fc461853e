"""Contrastive loss of given distances: images of a class close, others at least a margin away.

B batch.
"""

import torch
from torch import Tensor


def contrastive(distances: Tensor, labels: Tensor, margin: float = 1.0) -> Tensor:
    """Contrastive loss of distances (B, B) and labels (B,): a scalar, in units of distance.

    Source: Hadsell et al., CVPR 2006; distances not squared, and means over the pairs with
    non-zero loss, as in pytorch-metric-learning.

    Args:
        distances: Distances (B, B) between the images.
        labels: Labels (B,).
        margin: Distance beyond which images of two classes have zero loss.
    """
    same = labels[:, None] == labels
    diagonal = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    pull = distances.where(same & ~diagonal, 0)
    push = (margin - distances).relu().where(~same, 0)
    return _mean_of_positive(pull) + _mean_of_positive(push)


def _mean_of_positive(costs: Tensor) -> Tensor:
    return costs.sum() / (costs > 0).sum().clamp(min=1)
