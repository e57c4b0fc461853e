"""Weights from files: usual wrappings are removed, files that do not fit are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dmlray import backbones
from dmlray.backbones.weights import load_file, read_weights
from dmlray.errors import ConfigError, DataError

State = dict[str, Tensor]


class Malicious:
    """A pickled object that runs code when unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


class Small(nn.Module):
    """A small backbone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 1)
        self.blocks = nn.Sequential(nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))


WEIGHTS: State = {
    key: torch.arange(value.numel()).reshape(value.shape).to(value.dtype) + 1
    for key, value in Small().state_dict().items()
}
HEAD = {"head.weight": torch.zeros(5, 2)}
OTHER = {key: value + 7 for key, value in WEIGHTS.items()}


def prefixed(prefix: str, state: State = WEIGHTS) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def loaded(path: Path, content: Any, **options: Any) -> State:
    torch.save(content, path)
    module = Small()
    load_file(module, path, spare=("fc.",), **options)
    return module.state_dict()


def refused(path: Path, content: Any) -> str:
    before = Small().state_dict()
    torch.save(content, path)
    module = Small()
    module.load_state_dict(before)
    with pytest.raises(DataError) as caught:
        load_file(module, path, spare=("fc.",))
    assert "\n" not in str(caught.value)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key])  # all or nothing
    return str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {**WEIGHTS, **HEAD, "fc.weight": torch.zeros(3)},
        {**WEIGHTS, "epoch": 3, "name": "best"},
        {key: value for key, value in WEIGHTS.items() if "num_batches" not in key},
        {"epoch": 3, "state_dict": WEIGHTS, "optimizer": {"state": {0: torch.zeros(2)}}},
        {"model": {**WEIGHTS, **HEAD}},
        {"model": {"state_dict": prefixed("module.")}},
        {"model_state_dict": WEIGHTS},
        {"state_dict": OTHER, "state_dict_ema": WEIGHTS},
        {"student": prefixed("backbone.", OTHER), "teacher": prefixed("backbone.")},
        {"state_dict": prefixed("model.")},
        {"state_dict": {**prefixed("module.encoder_k.", OTHER), **prefixed("module.encoder_q.")}},
        {"learner": {**prefixed("trunk.network."), **HEAD}, "progress": {"epoch": 1}},
        prefixed("module."),
        prefixed("_orig_mod.module."),
        prefixed("backbone."),
        prefixed("my_network."),
        {**prefixed("visual."), "text.weight": torch.zeros(2)},
    ],
    ids=lambda content: "+".join(sorted({str(key).split(".")[0] for key in content})),
)
def test_weights_are_found_in_every_usual_wrapping(tmp_path: Path, content: Any) -> None:
    found = loaded(tmp_path / "w.pth", content)
    for key in WEIGHTS:
        if "num_batches" not in key:
            torch.testing.assert_close(found[key], WEIGHTS[key], rtol=0, atol=0)


def test_what_was_taken_is_logged_where_it_is_not_plain(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    loaded(tmp_path / "plain.pth", {**WEIGHTS, "fc.weight": torch.zeros(3)})
    assert not caplog.messages
    content = {"state_dict": {**prefixed("module."), **prefixed("module.", HEAD), "queue": HEAD}}
    content["state_dict"]["queue"] = torch.zeros(2)
    loaded(tmp_path / "run.pth", content)
    assert caplog.messages == [
        f"backbone.weights: {tmp_path / 'run.pth'}: 10 tensors used, those below state_dict, "
        "without their prefix module.; 1 others are not used; not used: head.weight"
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"stem.weight": None}, "missing stem.weight"),
        ({"stem.weight": torch.zeros(7)}, "misshapen stem.weight"),
        ({"blocks.2.weight": torch.zeros(2)}, "unexpected blocks.2.weight"),
        ({"stem.bias": None, "blocks.9.x": torch.zeros(1)}, "missing stem.bias; unexpected blocks"),
    ],
)
@pytest.mark.parametrize("wrap", [dict, lambda state: {"model": prefixed("module.", state)}])
def test_every_misfit_is_one_sentence_and_changes_nothing(
    tmp_path: Path, change: dict[str, Tensor | None], problem: str, wrap: Callable[[State], Any]
) -> None:
    state = {key: value for key, value in {**WEIGHTS, **change}.items() if value is not None}
    assert f"does not fit this backbone: {problem}" in refused(tmp_path / "w.pth", wrap(state))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(tmp_path: Path, bad: float) -> None:
    state = {**WEIGHTS, "blocks.1.bias": torch.full((2,), bad)}
    message = refused(tmp_path / "w.pth", {"state_dict": state})
    assert message.endswith("w.pth: blocks.1.bias holds NaN or infinite numbers")


@pytest.mark.parametrize(
    "content",
    [
        [torch.zeros(2)],
        {},
        {"epoch": 3},
        {0: torch.zeros(2)},
        torch.zeros(3),
        {"state_dict": [1]},
        {key: value.to_sparse() for key, value in WEIGHTS.items() if value.dim()},
        {key: value.to("meta") for key, value in WEIGHTS.items()},
    ],
    ids=str,
)
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: Any) -> None:
    assert "holds no mapping of names to tensors" in refused(tmp_path / "w.pth", content)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"backbone.weights: nowhere.pth: no such file. Allowed: "):
        read_weights(Path("nowhere.pth"))
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_weights(tmp_path)


def test_a_file_cannot_run_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Malicious()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match=r"evil.pth: is not a file of tensors, or holds objects"):
        read_weights(tmp_path / "evil.pth")
    assert "code ran" not in capfd.readouterr().out


def test_half_precision_and_safetensors_of_any_name_are_read(tmp_path: Path) -> None:
    half = {k: v.half() if v.is_floating_point() else v for k, v in WEIGHTS.items()}
    save_file(half, tmp_path / "weights.bin")
    module = Small()
    load_file(module, tmp_path / "weights.bin", spare=())
    torch.testing.assert_close(module.state_dict(), WEIGHTS)


def _timm(name: str, **options: Any) -> Any:
    import timm

    torch.manual_seed(0)
    return timm.create_model(name, pretrained=False, **options)


def _dinov2() -> tuple[str, Any]:
    state = _timm("vit_small_patch14_dinov2", num_classes=0, img_size=28).state_dict()
    return "vit_small_patch14_dinov2", {**state, "mask_token": torch.zeros(1, 384)}


def _deit() -> tuple[str, Any]:
    return "vit_tiny_patch16_224", {"model": _timm("vit_tiny_patch16_224").state_dict()}


def _larger_vit() -> tuple[str, Any]:
    return "vit_tiny_patch16_224", _timm("vit_tiny_patch16_224", img_size=384).state_dict()


def _swin() -> tuple[str, Any]:
    name = "swin_tiny_patch4_window7_224"
    index = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49).long()}
    return name, {**_timm(name).state_dict(), **index}


def _convnext() -> tuple[str, Any]:
    state = _timm("convnext_atto", num_classes=0).state_dict()
    renames = (("stem.", "downsample_layers.0."), ("head.norm.", "norm."))
    for new, old in renames:
        state = {key.replace(new, old): value for key, value in state.items()}
    return "convnext_atto", {"model": state}


def _without_head_norm() -> tuple[str, Any]:
    state = _timm("convnext_atto", num_classes=0).state_dict()
    return "convnext_atto", {k: v for k, v in state.items() if not k.startswith("head.norm")}


@pytest.mark.parametrize(
    "make", [_dinov2, _deit, _larger_vit, _swin, _convnext, _without_head_norm]
)
def test_files_that_timm_loads_are_loaded(
    tmp_path: Path, make: Callable[[], tuple[str, Any]]
) -> None:
    name, content = make()
    torch.save(content, tmp_path / "w.pth")
    trunk = backbones.build(name, str(tmp_path / "w.pth"))
    state = content.get("model", content)
    own = trunk.network.model.state_dict()  # type: ignore[union-attr]
    same = [key for key in own if key in state and own[key].shape == state[key].shape]
    assert same
    for key in same:
        torch.testing.assert_close(own[key], state[key])


def test_a_checkpoint_of_a_training_gives_its_trunk(tmp_path: Path) -> None:
    trunk = backbones.build("timm/resnet10t", "none")
    learner = nn.ModuleDict({"trunk": trunk, "head": nn.Linear(512, 8)})
    torch.save({"learner": learner.state_dict(), "progress": {"epoch": 1}}, tmp_path / "last.pt")
    again = backbones.build("timm/resnet10t", str(tmp_path / "last.pt"))
    torch.testing.assert_close(again.state_dict(), trunk.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    "name", ["convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224"]
)
def test_native_pooling_is_what_the_classifier_gets(name: str) -> None:
    trunk = backbones.build(name, "none", "native").eval()
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        features = trunk(images)
        model: Any = trunk.network.model
        expected = model.forward_head(model.forward_features(images), pre_logits=True).flatten(1)
    assert features.shape == (2, trunk.width)
    torch.testing.assert_close(features, expected, rtol=0, atol=0)
    with torch.no_grad():
        averaged = backbones.build(name, "none", "avg").eval()(images)
    assert averaged.shape != features.shape or not torch.allclose(averaged, features)


def test_native_pooling_needs_the_file_to_have_it(tmp_path: Path) -> None:
    name, content = _without_head_norm()
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(DataError, match=r"missing head.norm.weight, head.norm.bias"):
        backbones.build(name, str(tmp_path / "w.pth"), "native")


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_lite0", "bn_inception"])
def test_native_pooling_needs_a_network_of_timm(name: str) -> None:
    with pytest.raises(ConfigError, match=r"backbone.pooling: native needs a network of timm"):
        backbones.build(name, "none", "native")
