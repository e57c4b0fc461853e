import json
import re
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dmlray import backbones
from dmlray.backbones import bn_inception
from dmlray.backbones.bn_inception import BNInception
from dmlray.errors import ConfigError, DataError
from tests.golden_vectors import ROOT, files, load


def tensors_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """As in the authors' list, without BatchNorm's counters."""
    return {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}


def by_formula(module: BNInception, offset: float) -> dict[str, Tensor]:
    """The golden vectors' weights: waves over each tensor's flat index n."""
    state = {}
    for i, (key, tensor) in enumerate(tensors_of(module).items()):
        n = np.arange(tensor.numel(), dtype=np.float64)
        norm, kind = "_bn." in key, key.rsplit(".", 1)[1]
        if kind == "weight" and not norm:
            values = np.sin(0.7 * n + i + offset) * np.sqrt(4 / tensor[0].numel())
        elif kind == "weight":
            values = 1 + 0.1 * np.sin(n + i + offset)
        elif kind == "bias":
            values = 0.1 * np.cos(n + i + offset)
        elif kind == "running_mean":
            values = 0.1 * np.sin(1.3 * n + i + offset)
        else:
            values = 1 + 0.3 * np.sin(n + offset) ** 2
        state[key] = torch.tensor(values, dtype=torch.float32).reshape(tensor.shape)
    return state


def waves(height: int, width: int, offset: float) -> Tensor:
    n = np.arange(2 * 3 * height * width, dtype=np.float64)
    values = 60 * np.sin(0.013 * n + offset) + 20 * np.sin(0.31 * n)
    return torch.tensor(values, dtype=torch.float32).reshape(2, 3, height, width)


@pytest.mark.parametrize("path", files("backbones", "bn_inception*.npz"))
def test_equals_the_authors_network(path: Path, tmp_path: Path) -> None:
    expected = load(path)
    offset = float(expected["off"])
    torch.save(by_formula(BNInception(), offset), tmp_path / "weights.pth")
    trunk = backbones.build("bn_inception", str(tmp_path / "weights.pth"), "avg+max").eval()
    sizes = {
        tuple(map(int, m.groups())) for key in expected if (m := re.search(r"_(\d+)x(\d+)", key))
    }
    assert sizes
    for height, width in sizes:
        at = f"{height}x{width}"
        images = waves(height, width, offset)
        with torch.no_grad():
            maps, pooled = trunk.network(images), trunk(images)
        assert maps.shape == tuple(expected[f"map_{at}_shape"])
        close(pooled, expected[f"pooled_avg_plus_max_{at}"])
        close(maps.mean((0, 2, 3)), expected[f"map_mean_per_channel_{at}"])


def close(found: Tensor, expected: np.ndarray) -> None:
    # These weights amplify rounding: float32 differs from float64 by 0.1 % to 1 %, another padding
    # of one pooling layer or another eps by 4 % to 45 %. With equal kernels all bits are equal.
    wanted = torch.from_numpy(expected)
    assert found.shape == wanted.shape
    assert (found - wanted).norm() < 0.02 * wanted.norm()


def test_has_the_names_shapes_and_order_of_the_public_file() -> None:
    path = ROOT / "backbones" / "bn_inception_state_dict.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    found = [[key, list(tensor.shape)] for key, tensor in tensors_of(BNInception()).items()]
    published = json.loads(path.read_text())
    assert found == [entry for entry in published if not entry[0].startswith("last_linear.")]


def test_wants_images_as_caffe_does() -> None:
    statistics = backbones.build("bn_inception", "none").statistics
    assert statistics == ((104.0, 117.0, 128.0), (1.0, 1.0, 1.0), 1.0, True, 224)


def as_published(module: BNInception) -> OrderedDict[str, Tensor]:
    """BatchNorm's tensors as (1, C), the classifier at the end."""
    state = OrderedDict((k, v[None] if "_bn." in k else v) for k, v in tensors_of(module).items())
    state["last_linear.weight"] = torch.zeros(1000, 1024)
    state["last_linear.bias"] = torch.zeros(1000)
    return state


def test_reads_the_public_file_when_it_arrives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = BNInception()
    asked = []
    torch.save(as_published(module), tmp_path / "public.pth", _use_new_zipfile_serialization=False)

    def fetched(name: str, address: str) -> Path:
        asked.append((name, address))
        return tmp_path / "public.pth"

    monkeypatch.setattr(bn_inception, "fetched", fetched)
    found = backbones.build("bn_inception").network.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in tensors_of(module).items())
    assert asked == [("bn_inception", bn_inception.ADDRESS)]


def test_a_file_that_lacks_a_branch_is_named(tmp_path: Path) -> None:
    state = as_published(BNInception())
    del state["inception_4c_3x3.weight"]
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(DataError, match=r"other.pth: .* missing inception_4c_3x3.weight$"):
        backbones.build("bn_inception", str(tmp_path / "other.pth"))


def test_a_side_at_which_the_branches_do_not_meet_is_refused() -> None:
    trunk = backbones.build("bn_inception", "none")
    trunk.check_size(96)
    with pytest.raises(ConfigError, match=r"^data.transform.size: 112 does not suit .* at 224$"):
        trunk.check_size(112)
