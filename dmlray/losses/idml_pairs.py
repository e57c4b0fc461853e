"""Pair losses on introspective distances: a reconstruction.

Source: wzzheng/IDML has no code for them. By the authors' answer in issue 1 the introspective
distance replaces the plain one and the rest is as in each loss's paper. Pairs, triplets and
draws, not specified there, use plain distances of the semantic embedding, without gradient.
B batch, C classes, D embedding.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from dmlray.losses.contrastive import contrastive
from dmlray.losses.cosine import unit_rows
from dmlray.losses.idml import introspective_distances, semantic_distances
from dmlray.losses.multi_similarity import multi_similarity
from dmlray.losses.semihard_triplet import semihard_triplet
from dmlray.losses.weighted_margin import weighted_margin

PairForm = Literal["contrastive", "triplet", "margin", "multi_similarity"]
_INITIAL_BOUNDARY = 1.2  # distance, as in arXiv 1706.07567


class IntrospectivePairs(nn.Module):
    """One of the pair losses; `margin` has a learned boundary per class."""

    def __init__(self, form: PairForm, classes: int, tau: float = 5.0) -> None:
        super().__init__()
        self.form, self.tau = form, tau
        if form == "margin":
            self.boundaries = nn.Parameter(torch.full((classes,), _INITIAL_BOUNDARY))

    def forward(self, semantic: Tensor, uncertainty: Tensor, labels: Tensor) -> Tensor:
        """Map semantic and uncertainty (B, D), not normalised, and labels (B,) to a scalar."""
        semantic = unit_rows(semantic)
        distances = introspective_distances(semantic, uncertainty, self.tau)  # (B, B)
        plain = semantic_distances(semantic).detach()
        match self.form:
            case "contrastive":
                return contrastive(distances, labels)
            case "triplet":
                return semihard_triplet(distances, plain, labels)
            case "margin":
                boundaries = self.boundaries.index_select(0, labels)
                return weighted_margin(distances, plain, semantic.shape[1], labels, boundaries)
            case "multi_similarity":
                return multi_similarity(_as_cosines(distances), _as_cosines(plain), labels)


def _as_cosines(distances: Tensor) -> Tensor:
    """Convert distances of unit vectors to cosines."""
    return 1 - distances.square() / 2
