"""Margin loss of sampled triplets, with a learned distance boundary per class.

T triplets.
"""

from typing import Literal

from torch import Tensor

Count = Literal["triplets", "halves"]


def margin_loss(
    near: Tensor, far: Tensor, boundaries: Tensor, usable: Tensor, margin: float, count: Count
) -> Tensor:
    """Margin loss of distances to positives and negatives (T,): a scalar, in their unit.

    Source: Wu et al., ICCV 2017, arXiv 1706.07567, eq. 4 and 5.
    Departs: 0 if no triplet has a loss.

    Args:
        near: Distances (T,) between anchors and positives.
        far: Distances (T,) between anchors and negatives.
        boundaries: Boundary distance (T,) between positives and negatives of each anchor's class.
        usable: Which of the triplets (T,) exist.
        margin: Slack on either side of the boundary.
        count: Divisor of the sum: `triplets` with non-zero loss, as the authors' code computes
            with booleans today, or `halves` (pull or push) with non-zero loss, as in the paper.
    """
    pull = (near - boundaries + margin).relu().where(usable, 0)
    push = (boundaries - far + margin).relu().where(usable, 0)
    pulls, pushes = pull > 0, push > 0
    nonzero = (pulls | pushes).sum() if count == "triplets" else pulls.sum() + pushes.sum()
    return (pull + push).sum() / nonzero.clamp(min=1)
