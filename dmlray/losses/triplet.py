"""Triplet loss of sampled triplets.

T triplets.
"""

from torch import Tensor


def triplet_loss(near: Tensor, far: Tensor, usable: Tensor, margin: float) -> Tensor:
    """Triplet loss of distances to positives and negatives (T,): a scalar, in their unit.

    Source: Schroff et al., CVPR 2015, arXiv 1503.03832, eq. 2; without squares and as a mean over
    the triplets with non-zero loss, as in zbr17/GeDML; 0 if there are none.

    Args:
        near: Distances (T,) between anchors and positives.
        far: Distances (T,) between anchors and negatives.
        usable: Which of the triplets (T,) exist.
        margin: Margin between the distances.
    """
    costs = (near - far + margin).relu().where(usable, 0)
    return costs.sum() / (costs > 0).sum().clamp(min=1)
