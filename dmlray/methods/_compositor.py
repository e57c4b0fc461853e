"""Sub-embeddings and the compositors that combine them.

B batch, F backbone width, K sub-embeddings, M composites, D width of each.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dmlray.losses.cosine import at_least_float32


class Composition(NamedTuple):
    """sub_embeddings (B, K, D), logits of the weights (B, M, K), composites (B, M, D)."""

    sub_embeddings: Tensor
    logits: Tensor
    composites: Tensor


class Compositor(nn.Module):
    """K linear sub-embeddings, and M weighted means of them with image-dependent weights.

    Source: Zheng et al., CVPR 2021; wzzheng/DCML architectures/multifeature_resnet50.py, line 37.
    Departs: one matrix for all sub-embeddings, one for all compositors; equal initialisation.
    """

    def __init__(self, width: int, dim: int, sub_embeddings: int, composites: int) -> None:
        super().__init__()
        self.dim, self.count = dim, sub_embeddings
        self.sub_embed = nn.Linear(width, sub_embeddings * dim)
        self.choose = nn.Linear(sub_embeddings * dim, composites * sub_embeddings)

    def forward(self, features: Tensor) -> Composition:
        """Map features (B, F) to their composition; the weights' input is detached."""
        joined = self.sub_embed(features)  # (B, K D)
        logits = self.choose(joined.detach()).unflatten(1, (-1, self.count))
        parts = joined.unflatten(1, (self.count, self.dim))
        weights = at_least_float32(logits).softmax(2)
        with torch.autocast(features.device.type, enabled=False):
            return Composition(parts, logits, weights @ at_least_float32(parts))


def join(composites: Tensor, shares: Sequence[int]) -> list[Tensor]:
    """Split composites (B, M, D) into heads of M share / sum of shares each: (B, n D) per head.

    Source: wzzheng/DCML architectures/multifeature_resnet50.py, lines 72 to 125, in quarters.
    """
    unit = composites.shape[1] // sum(shares)
    return [head.flatten(1) for head in composites.split([unit * n for n in shares], dim=1)]
