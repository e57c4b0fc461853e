"""IDML's formulas: uncertainty shrinks the differences between images.

Source: Wang et al., arXiv 2205.04449 and 2309.09982, whose texts were not available: the proxy
form is wzzheng/IDML at c49aaa3, losses.py; the pair form is a reconstruction from the figure
assets/motivation.png and the authors' comments in issue 1. B batch, C classes, D embedding.
"""

import torch
from torch import Tensor, nn

from dmlray.losses.cosine import at_least_float32, pairwise_cosines
from dmlray.losses.proxy_anchor import proxy_anchor

_NEAREST = 1e-6  # lower bound of (squared) distances, which the formulas divide by


class IntrospectiveProxyAnchor(nn.Module):
    """One proxy without uncertainty per class, and Proxy-Anchor on introspective similarities.

    Source: wzzheng/IDML, losses.py, lines 31-75.

    Args:
        spread: Standard deviation of the initial proxies over Kaiming's; their length matters.
    """

    def __init__(
        self,
        classes: int,
        dim: int,
        margin: float,
        alpha: float,
        tau: float = 5.0,
        offset: float = 4.0,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        self.margin, self.alpha, self.tau, self.offset = margin, alpha, tau, offset
        proxies = nn.init.kaiming_normal_(torch.empty(classes, dim), mode="fan_out")
        self.proxies = nn.Parameter(spread * proxies)

    def forward(self, semantic: Tensor, uncertainty: Tensor, labels: Tensor) -> Tensor:
        """Map semantic and uncertainty (B, D) and labels (B,) to a scalar, in nats."""
        similarities = introspective_similarities(
            semantic, uncertainty, self.proxies, self.tau, self.offset
        )
        return proxy_anchor(similarities, labels, self.margin, self.alpha)


def introspective_similarities(
    semantic: Tensor, uncertainty: Tensor, proxies: Tensor, tau: float = 5.0, offset: float = 4.0
) -> Tensor:
    """1 - (1 - cosine) exp(-(|v|^2 + offset) / (tau |m - p|^2)) of m, v (B, D), p (C, D): (B, C).

    Source: wzzheng/IDML, losses.py, lines 41-53; proxies are not normalised.
    Departs: a squared distance is at least 1e-6; the code returns NaN for a distance of 0.

    Args:
        semantic: Semantic embeddings m (B, D).
        uncertainty: Uncertainty embeddings v (B, D).
        proxies: Proxies p (C, D).
        tau: Scale of the uncertainty, unitless; the code's constant 5.
        offset: Squared uncertainty added to each pair; the code's constant 4.
    """
    cosines = pairwise_cosines(semantic, proxies)
    distances = _squared(semantic, proxies, -1).clamp(min=_NEAREST)  # (B, C)
    squares = at_least_float32(uncertainty).square().sum(1, keepdim=True) + offset  # (B, 1)
    return 1 - (1 - cosines) * torch.exp(-squares / (tau * distances))


def introspective_distances(semantic: Tensor, uncertainty: Tensor, tau: float = 5.0) -> Tensor:
    """Compute a exp(-b / (tau a)) with a = |m_i - m_j|, b = |v_i + v_j|, of m and v (B, D): (B, B).

    Source: reconstruction, see the module docstring. Distances a are at least 1e-6.
    """
    distances = semantic_distances(semantic)
    lengths = _square_root(_squared(uncertainty, uncertainty, 1))
    return distances * torch.exp(-lengths / (tau * distances))


def semantic_distances(semantic: Tensor) -> Tensor:
    """Euclidean distances between the rows of semantic (B, D), at least 1e-6: (B, B)."""
    return _square_root(_squared(semantic, semantic, -1))


def _square_root(squares: Tensor) -> Tensor:
    return squares.clamp(min=_NEAREST**2).sqrt()


def _squared(rows: Tensor, columns: Tensor, sign: int) -> Tensor:
    """|row + sign column|^2 of rows (B, D), columns (C, D): (B, C); rounding may give < 0."""
    rows, columns = at_least_float32(rows), at_least_float32(columns)
    with torch.autocast(rows.device.type, enabled=False):
        products = rows @ columns.T
    return rows.square().sum(1, keepdim=True) + columns.square().sum(1) + 2 * sign * products
