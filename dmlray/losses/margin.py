"""Margin loss of sampled triplets: each class learns how far apart its images may be.

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
    Departs: 0 where nothing costs.

    Args:
        boundaries: Distance (T,) that divides like from unlike, for each anchor's class.
        usable: Which of the triplets (T,) exist.
        margin: Slack on either side of the boundary.
        count: What the sum is divided by: `triplets` of which either half costs something, as
            the authors' code counts on booleans today, or costly `halves`, as in the paper.
    """
    pull = (near - boundaries + margin).relu().where(usable, 0)
    push = (boundaries - far + margin).relu().where(usable, 0)
    pulls, pushes = pull > 0, push > 0
    costly = (pulls | pushes).sum() if count == "triplets" else pulls.sum() + pushes.sum()
    return (pull + push).sum() / costly.clamp(min=1)
