"""Losses: one formula per file, tested against the equation and the authors' numbers."""

from dmlray.losses.contrastive import contrastive
from dmlray.losses.fast_moco import fast_moco
from dmlray.losses.idml import IntrospectiveProxyAnchor
from dmlray.losses.idml_pairs import IntrospectivePairs
from dmlray.losses.margin import margin_loss
from dmlray.losses.multi_similarity import multi_similarity
from dmlray.losses.proxy_anchor import ProxyAnchorLoss, proxy_anchor
from dmlray.losses.self_reinforced import self_reinforced
from dmlray.losses.semihard_triplet import semihard_triplet
from dmlray.losses.triplet import triplet_loss
from dmlray.losses.weighted_margin import weighted_margin

__all__ = [
    "IntrospectivePairs", "IntrospectiveProxyAnchor", "ProxyAnchorLoss", "contrastive",
    "fast_moco", "margin_loss", "multi_similarity", "proxy_anchor", "self_reinforced",
    "semihard_triplet", "triplet_loss", "weighted_margin",
]  # fmt: skip
