"""Multi-similarity loss of given similarities.

B batch.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def multi_similarity(
    similarities: Tensor,
    mined_on: Tensor,
    labels: Tensor,
    alpha: float = 2.0,
    beta: float = 50.0,
    threshold: float = 0.5,
    slack: float = 0.1,
) -> Tensor:
    """Multi-similarity loss of similarities (B, B) and labels (B,): a scalar, in similarity.

    Source: Wang et al., CVPR 2019, arXiv 1904.06627, eq. 11 to 13; a mean over all images, 0 for
    those without informative pairs.

    Args:
        similarities: Similarities (B, B) between the images.
        mined_on: Similarities (B, B) for mining pairs; no gradient flows through them.
        labels: Labels (B,).
        alpha: Weight of dissimilar images of a class, unitless.
        beta: Weight of similar images of two classes, unitless.
        threshold: Similarity between those of positives and negatives.
        slack: Tolerance of the mining, in similarity.
    """
    own, other = _informative(mined_on.detach(), labels, slack)
    pull = _log_one_plus_sum_exp(alpha * (threshold - similarities), own) / alpha  # (B,)
    push = _log_one_plus_sum_exp(beta * (similarities - threshold), other) / beta
    counted = own.any(1) & other.any(1)
    return (pull + push).where(counted, 0).sum() / max(len(labels), 1)


def _informative(similarities: Tensor, labels: Tensor, slack: float) -> tuple[Tensor, Tensor]:
    """Masks (B, B) of the informative pairs of one class and of two classes."""
    same = labels[:, None] == labels
    own = same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    hardest_own = similarities.masked_fill(~own, torch.inf).amin(1, keepdim=True)
    hardest_other = similarities.masked_fill(same, -torch.inf).amax(1, keepdim=True)
    return own & (similarities - slack < hardest_other), ~same & (
        similarities + slack > hardest_own
    )


def _log_one_plus_sum_exp(logits: Tensor, keep: Tensor) -> Tensor:
    """log(1 + sum of exp) along each row over kept entries: (B, B) -> (B,)."""
    return F.pad(logits.masked_fill(~keep, -torch.inf), (1, 0)).logsumexp(1)
