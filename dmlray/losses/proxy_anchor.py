"""Proxy-Anchor: the proxy of each class attracts its images and repels all others.

B batch, C classes, D embedding.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dmlray.losses.cosine import at_least_float32, pairwise_cosines


class ProxyAnchorLoss(nn.Module):
    """One proxy per class, and the loss of embeddings against them.

    Source: Kim et al., CVPR 2020, arXiv 2003.13911; initialised as in the authors' code.
    """

    def __init__(self, classes: int, dim: int, margin: float, alpha: float) -> None:
        super().__init__()
        self.margin, self.alpha = margin, alpha
        proxies = torch.empty(classes, dim)
        self.proxies = nn.Parameter(nn.init.kaiming_normal_(proxies, mode="fan_out"))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Map embeddings (B, D), not normalised, and labels (B,) to a scalar, in nats."""
        cosines = pairwise_cosines(embeddings, self.proxies)
        return proxy_anchor(cosines, labels, self.margin, self.alpha)


def proxy_anchor(cosines: Tensor, labels: Tensor, margin: float, alpha: float) -> Tensor:
    """Proxy-Anchor loss of cosines (B, C) and labels (B,) in [0, C): a scalar, in nats.

    Source: Kim et al., CVPR 2020, arXiv 2003.13911, eq. 4.
    Departs: no overflow where alpha (1 + margin) > 88 in float32; 0 for an empty batch.

    Args:
        cosines: Cosines (B, C) of images and proxies.
        labels: Labels (B,) in [0, C).
        margin: Slack on the cosine, unitless.
        alpha: Inverse temperature, unitless; larger emphasises harder images.
    """
    cosines = at_least_float32(cosines)
    classes = torch.arange(cosines.shape[1], device=labels.device)
    own = labels[:, None] == classes  # (B, C)
    pull = log_one_plus_sum_exp(-alpha * (cosines - margin), own)  # (C,), 0 where absent
    push = log_one_plus_sum_exp(alpha * (cosines + margin), ~own)  # (C,)
    present = own.any(0).sum().clamp(min=1)
    return pull.sum() / present + push.mean()


def log_one_plus_sum_exp(logits: Tensor, keep: Tensor) -> Tensor:
    """log(1 + sum of exp) down the batch over kept entries: (B, C) -> (C,)."""
    # The row of zeros is the 1; it also keeps an empty sum and its gradient finite.
    kept = logits.masked_fill(~keep, -torch.inf)
    return F.pad(kept, (0, 0, 1, 0)).logsumexp(0)
