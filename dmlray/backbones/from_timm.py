"""timm's networks by their timm names, feature maps and tokens alike."""

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dmlray.backbones.trunk import InputStatistics, Network
from dmlray.backbones.weights import is_file, load_tensors, read_tensors, silenced, unreachable
from dmlray.errors import ConfigError, DataError


class FeatureMap(nn.Module):
    """A timm model without its head: images -> (B, F, H, W) or tokens (B, T, F)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", "") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        maps: Tensor = self.model.forward_features(images)  # type: ignore[operator]
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


def names() -> list[str]:
    """Names of all networks that `network` can build."""
    import timm

    return list(timm.list_models())


def is_name(name: str) -> bool:
    """Whether timm knows `name`, with or without the tag of its weights."""
    import timm

    return bool(timm.is_model(name))


def network(name: str, weights: str) -> Network:
    """The network up to its last feature map or tokens.

    Raises:
        ConfigError: If there are no weights of that tag.
        DataError: If the weights cannot be fetched, or the file does not fit.
    """
    import timm

    pretrained = weights == "pretrained"
    repository = _check_name(name)
    if pretrained:
        _check_reachable(name, repository)
    try:
        with silenced():
            model: Any = timm.create_model(name, pretrained=pretrained, num_classes=0)
    except (OSError, RuntimeError) as error:
        raise unreachable(name, error) from error
    settings = model.pretrained_cfg
    if is_file(weights):
        load_tensors(model, read_tensors(Path(weights)), weights, _classifiers(settings))
    statistics = InputStatistics(
        tuple(settings["mean"]), tuple(settings["std"]), size=settings["input_size"][-1]
    )
    has_class_token = getattr(model, "cls_token", None) is not None
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    return Network(FeatureMap(model), model.num_features, statistics, prefix, has_class_token)


def _classifiers(settings: dict[str, Any]) -> tuple[str, ...]:
    layers = settings.get("classifier") or ()
    return tuple(f"{layer}." for layer in ([layers] if isinstance(layers, str) else layers))


def _check_name(name: str) -> str:
    """Where the weights of `name` live on the hub; empty where they live elsewhere or nowhere.

    Raises:
        ConfigError: If there are no weights of that tag.
    """
    from timm.models import get_pretrained_cfg

    try:
        settings = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ConfigError("backbone.name", [f"{name}: {error}"]) from error
    return str(settings.hf_hub_id or "").split("@")[0] if settings else ""


def _check_reachable(name: str, repository: str) -> None:
    """Ask once whether the weights are cached or can be fetched; timm would retry for a minute.

    Raises:
        DataError: If there are no weights, or no way to them.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError
    from timm.models import is_model_pretrained

    if not is_model_pretrained(name):
        raise DataError(
            f"backbone {name}: timm has no pretrained weights for it; "
            "say backbone.weights=none or backbone.weights=FILE"
        )
    files = ("model.safetensors", "pytorch_model.bin")
    cached = (hub.try_to_load_from_cache(repository, file) for file in files)
    if not repository or any(isinstance(path, str) for path in cached):
        return
    try:
        with silenced():
            hub.get_hf_file_metadata(hub.hf_hub_url(repository, files[0]), timeout=10)
    except EntryNotFoundError:
        pass  # the repository answers, and keeps its weights under another name
    except Exception as error:  # each version of the hub's client raises its own kinds
        raise unreachable(name, error) from error
