"""Backbones by name."""

from collections.abc import Callable
from functools import partial

from dmlray.backbones import bn_inception, efficientnet_lite0, from_timm, from_torchvision
from dmlray.backbones.trunk import BatchNorm, Network, Pooling, Trunk
from dmlray.errors import ConfigError
from dmlray.nearest_names import did_you_mean

_OWN = {"bn_inception": bn_inception.network, "efficientnet_lite0": efficientnet_lite0.network}
_NAMED = [*_OWN, "resnet18", "resnet34", "resnet50", "resnet101", "googlenet"]


def names() -> list[str]:
    """Return the recommended names; any other name of torchvision or timm works too."""
    return list(_NAMED)


def build(
    name: str,
    weights: str = "pretrained",
    pooling: Pooling = "avg",
    batchnorm: BatchNorm = "train",
) -> Trunk:
    """Build the backbone `name`; torchvision takes precedence, `timm/NAME` selects timm's.

    Args:
        name: Name of the network.
        weights: `pretrained`, `none` (random), or the path of a file of tensors.
        pooling: How a feature map becomes a vector.
        batchnorm: Whether BatchNorm trains, keeps its statistics, or its weights too.

    Raises:
        ConfigError: If there is no such backbone, or it has no such pooling.
        DataError: If the weights cannot be downloaded or do not fit.
    """
    build_network, own_name = _source(name)
    if pooling == "native" and build_network is from_timm.network:
        build_network = partial(from_timm.network, native=True)
    return Trunk(build_network(own_name, weights), pooling, batchnorm)


def _source(name: str) -> tuple[Callable[[str, str], Network], str]:
    if name in _OWN:
        return _OWN[name], name
    if name in from_torchvision.names():
        return from_torchvision.network, name
    timm_name = name.removeprefix("timm/")
    if from_timm.is_name(timm_name):
        return from_timm.network, timm_name
    raise ConfigError("backbone.name", [_unknown(name)])


def _unknown(name: str) -> str:
    # Recommended names first: of equally close matches the earlier is kept.
    known = [*_NAMED, *from_torchvision.names(), *from_timm.names()]
    hint = did_you_mean(name.removeprefix("timm/"), known)
    return f"unknown backbone {name!r}.{hint} Allowed: {', '.join(_NAMED)}, or any timm model"
