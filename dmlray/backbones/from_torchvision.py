"""torchvision's networks with the ImageNet weights of their papers (IMAGENET1K_V1)."""

import re
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from dmlray.backbones.download import fetched
from dmlray.backbones.state_dicts import State
from dmlray.backbones.trunk import Network
from dmlray.backbones.weights import is_file, load_file, silenced
from dmlray.input_statistics import InputStatistics

_CLASSIFIERS = ("fc.", "classifier.", "aux1.", "aux2.")
_FAMILIES = (
    "convnext_", "densenet", "efficientnet_", "googlenet", "mobilenet_", "resnet", "resnext",
    "vgg", "wide_resnet",
)  # fmt: skip
"""Families that end in a feature map, pooling and a classifier."""
_OLD_DENSE_LAYER = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")
"""DenseNet's public files have old names: `norm.1.` is now `norm1.`."""


def names() -> list[str]:
    """Return the names of all networks that `network` can build."""
    from torchvision import models

    return [name for name in models.list_models(module=models) if name.startswith(_FAMILIES)]


def network(name: str, weights: str) -> Network:
    """Build the network up to its last feature map.

    Raises:
        DataError: If the weights cannot be downloaded, or the file does not fit.
    """
    from torchvision import models

    published = models.get_model_weights(name).IMAGENET1K_V1
    with silenced():
        module = _feature_map(models.get_model(name, weights=None))
    if weights != "none":
        path = Path(weights) if is_file(weights) else fetched(name, published.url)
        load_file(module, path, spare=_CLASSIFIERS, renames=[_with_new_names])
    return Network(module, _width(module), _statistics(name, published.transforms()))


def _feature_map(whole: nn.Module) -> nn.Module:
    """Return the layers before the pooling, with unchanged names so that public files fit."""
    children = OrderedDict(whole.named_children())
    if "features" in children:
        parts = OrderedDict(features=children["features"])
        if type(whole).__name__ == "DenseNet":  # its `forward` has a functional ReLU at the end
            parts["relu"] = nn.ReLU(inplace=True)
        return nn.Sequential(parts)
    head = ("avgpool", "dropout", "fc", "aux1", "aux2")
    return nn.Sequential(OrderedDict((k, v) for k, v in children.items() if k not in head))


def _with_new_names(state: State) -> State:
    return {_OLD_DENSE_LAYER.sub(r"\1\2", key): tensor for key, tensor in state.items()}


@torch.no_grad()
def _width(module: nn.Module) -> int:
    return int(module.eval()(torch.zeros(1, 3, 64, 64)).shape[1])


def _statistics(name: str, preset: object) -> InputStatistics:
    size = preset.crop_size[0]  # type: ignore[attr-defined]
    if name == "googlenet":  # its weights need 0.5; torchvision converts inside `forward`
        return InputStatistics((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), size=size)
    return InputStatistics(tuple(preset.mean), tuple(preset.std), size=size)  # type: ignore[attr-defined]
