"""timm's networks by their timm names, with feature maps or tokens."""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from dmlray.backbones.download import fetched, unreachable
from dmlray.backbones.state_dicts import State
from dmlray.backbones.trunk import Network
from dmlray.backbones.weights import Rename, is_file, load_file, silenced
from dmlray.errors import ConfigError, DataError
from dmlray.input_statistics import InputStatistics

_TRAINING_ONLY = ("mask_token", "head.", "head_dist.", "fc_norm.")
_AFTER_THE_MAP = ("head.", "fc_norm.", "attn_pool.")
"""Layers that timm applies to pooled features: not part of the trunk, see `FeatureMap`."""
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")


class FeatureMap(nn.Module):
    """A timm model without its head: images -> (B, F, H, W) or tokens (B, T, F).

    Departs: a norm that timm applies after the pooling is left out as part of the head.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.channels_last = getattr(model, "output_fmt", "") == "NHWC"

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to the feature map that precedes the model's pooling."""
        maps: Tensor = self.model.forward_features(images)  # type: ignore[operator]
        if not isinstance(maps, Tensor):
            problem = f"{type(self.model).__name__} has no single feature map. Choose another"
            raise ConfigError("backbone.name", [problem])
        return maps.permute(0, 3, 1, 2) if self.channels_last else maps


class Pooled(nn.Module):
    """A timm model without its classifier: images -> its own pooled features (B, F).

    These are the inputs of its classifier, after attention pooling, norms etc.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, F), pooled as the model itself does."""
        features: Tensor = self.model.forward_head(  # type: ignore[operator]
            self.model.forward_features(images),  # type: ignore[operator]
            pre_logits=True,
        )
        return features.flatten(1)


def names() -> list[str]:
    """Return the names of all networks that `network` can build."""
    import timm

    return list(timm.list_models())


def is_name(name: str) -> bool:
    """Whether timm has a model `name`, with or without the tag of its weights."""
    import timm

    return bool(timm.is_model(name))


def network(name: str, weights: str, native: bool = False) -> Network:
    """Build the network up to its last feature map or tokens, or with `native` its pooled features.

    Raises:
        ConfigError: If there are no weights of that tag.
        DataError: If the weights cannot be downloaded, or the file does not fit.
    """
    published = _published(name)
    if weights == "pretrained":
        model = _loaded(name, _fetched(name, published))
    else:
        model = _created(name, pretrained=False)
    settings = model.pretrained_cfg
    if is_file(weights):
        spare = (*_classifiers(settings), *_TRAINING_ONLY)
        absent = () if native else _AFTER_THE_MAP
        load_file(model, Path(weights), spare, _renames(model), absent)
    statistics = InputStatistics(
        tuple(settings["mean"]), tuple(settings["std"]), size=settings["input_size"][-1]
    )
    if native:
        width = getattr(model, "head_hidden_size", model.num_features)
        return Network(Pooled(model), width, statistics, native=True)
    has_class_token = getattr(model, "cls_token", None) is not None
    prefix = int(getattr(model, "num_prefix_tokens", has_class_token))
    return Network(FeatureMap(model), model.num_features, statistics, prefix, has_class_token)


def _loaded(name: str, path: Path) -> Any:
    """Build the model and load the file with timm, which translates older names.

    Raises:
        DataError: If the file is damaged or of another model.
    """
    overlay = {"file": str(path), "custom_load": False}
    try:
        return _created(name, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # damaged files raise many types
        raise DataError(
            f"{path}: does not hold the weights of backbone {name} ({type(error).__name__}); "
            "delete it to download it again"
        ) from error


def _renames(model: Any) -> list[Rename]:
    """Return the renamings to try: that of the model's module in timm, if any, then none."""
    module = sys.modules[type(model).__module__]
    translate = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
    return [partial(_translated, translate, model), dict] if translate else [dict]


def _translated(translate: Callable[..., State], model: Any, state: State) -> State:
    with silenced():
        return translate(state, model)


def _created(name: str, **options: Any) -> Any:
    """Build the model without classifier, for images of any size where supported."""
    import timm

    with silenced():
        try:
            return timm.create_model(name, num_classes=0, dynamic_img_size=True, **options)
        except TypeError as error:
            if "dynamic_img_size" not in str(error):
                raise
        return timm.create_model(name, num_classes=0, **options)


def _classifiers(settings: dict[str, Any]) -> tuple[str, ...]:
    layers: str | Sequence[str] = settings.get("classifier") or ()
    return tuple(f"{layer}." for layer in ([layers] if isinstance(layers, str) else layers))


def _published(name: str) -> Any:
    """Return timm's description of the weights of `name`; None if there are none.

    Raises:
        ConfigError: If there are no weights of that tag.
    """
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(name)
    except RuntimeError as error:
        raise ConfigError("backbone.name", [f"{name}: {error}"]) from error


def _fetched(name: str, published: Any) -> Path:
    """Return the file of weights in the cache of the hub, or of torch.hub if not on the hub.

    Raises:
        DataError: If there are no weights, or they cannot be downloaded.
    """
    repository = published and published.hf_hub_id
    if repository:
        return _fetched_from_hub(name, *repository.split("@"))
    if published and published.url:
        return fetched(name, published.url)
    raise DataError(
        f"backbone {name}: timm has no pretrained weights for it; "
        "set backbone.weights=none or backbone.weights=FILE"
    )


def _fetched_from_hub(name: str, repository: str, revision: str | None = None) -> Path:
    import huggingface_hub as hub

    for file in _HUB_FILES:
        cached = hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    try:
        with silenced(progress=True):
            # `file_exists` sends one request; a download retries for a minute.
            existing = (f for f in _HUB_FILES if hub.file_exists(repository, f, revision=revision))
            file = next(existing, _HUB_FILES[0])
            return Path(hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # exception types differ between versions of the hub's client
        address = hub.hf_hub_url(repository, _HUB_FILES[0], revision=revision)
        raise unreachable(name, address, error) from error
