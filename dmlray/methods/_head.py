"""The linear head that methods share, and its initialisation from principal components.

N images, F backbone width, D embedding.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from dmlray.losses.cosine import at_least_float32


class _Principal(NamedTuple):
    """Mean (F,), variances (F,) float64, largest first, and their directions (F, F) as rows."""

    mean: Tensor
    variances: Tensor
    directions: Tensor


# A search that trains only heads starts every trial from the same features of a fold.
_known = WeakTensorKeyDictionary()


def linear_head(width: int, dim: int) -> nn.Linear:
    """Build a layer F -> D with Kaiming-normal weights (fan-out) and zero bias.

    Source: tjddus9597/Proxy-Anchor-CVPR2020, code/net/bn_inception.py.
    """
    head = nn.Linear(width, dim)
    nn.init.kaiming_normal_(head.weight, mode="fan_out")
    nn.init.zeros_(head.bias)
    return head


@torch.no_grad()
def principal_head(head: nn.Linear, features: Tensor) -> None:
    """Initialise `head` as the projection of features (N, F) onto their D principal directions.

    One factor scales the outputs to a mean variance of 1, so that learning rates are comparable
    between backbones; a factor per direction (whitening) would change the cosines. Directions
    beyond the rank of the features are small and random.
    """
    if features not in _known:
        _known[features] = _principal(at_least_float32(features).to(head.weight.device))
    mean, variances, directions = (each.to(head.weight.device) for each in _known[features])
    rounding = max(1e-6 * float(variances[0]), 1e-10 * float(mean.square().mean()))
    rank = int((variances > rounding).sum())
    kept = min(len(head.weight), rank)
    if kept == 0:
        return  # all features are equal
    scale = variances[:kept].mean().rsqrt()
    nn.init.normal_(head.weight, std=0.01 * float(scale) / head.in_features**0.5)
    head.weight[:kept] = (scale * directions[:kept]).to(head.weight.dtype)
    head.bias.copy_(-(head.weight @ mean.to(head.weight.dtype)))


def _principal(features: Tensor) -> _Principal:
    mean = features.mean(0)
    centred = features - mean
    covariance = (centred.T @ centred / len(features)).double()
    variances, directions = torch.linalg.eigh(covariance)
    return _Principal(mean, variances.flip(0), directions.flip(1).T)


def trainable(*modules: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of `modules` that are not frozen."""
    return [p for module in modules for p in module.parameters() if p.requires_grad]
