from pathlib import Path

import pytest
import torch
from torch import nn

from dmlray.backbones.weights import load_tensors, read_tensors
from dmlray.errors import DataError


class Unwelcome:
    """A pickled object that would run code when it is loaded without care."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def test_a_missing_file_is_named() -> None:
    with pytest.raises(DataError, match=r"backbone.weights: nowhere.pth: no such file. Allowed: "):
        read_tensors(Path("nowhere.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"not tensors at all")
    with pytest.raises(DataError, match=f"weights{suffix}: is not a file of tensors"):
        read_tensors(path)


def test_a_file_cannot_run_code(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save({"weight": Unwelcome()}, tmp_path / "evil.pth")
    with pytest.raises(DataError, match="is not a file of tensors"):
        read_tensors(tmp_path / "evil.pth")
    assert "code ran" not in capfd.readouterr().out


def test_a_nested_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(2, 2).state_dict(), "epoch": 3}, tmp_path / "run.pth")
    with pytest.raises(DataError, match=r"run.pth: does not hold a plain mapping"):
        read_tensors(tmp_path / "run.pth")


def test_safetensors_round_trip(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    state = nn.Linear(2, 3).state_dict()
    safetensors.save_file(state, tmp_path / "weights.safetensors")
    found = read_tensors(tmp_path / "weights.safetensors")
    assert all(torch.equal(found[key], state[key]) for key in state)


def test_every_misfit_is_told_in_one_sentence() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = {**module.state_dict(), "0.weight": torch.zeros(7), "other.weight": torch.zeros(1)}
    del state["1.weight"]
    with pytest.raises(DataError) as caught:
        load_tensors(module, state, "f.pth", spare=("fc.",))
    assert str(caught.value) == (
        "f.pth: does not fit this backbone: missing 1.weight; unexpected other.weight; "
        "misshapen 0.weight"
    )


def test_a_classifier_may_be_extra_and_counters_may_lack() -> None:
    module = nn.Sequential(nn.BatchNorm2d(2))
    state = {k: v + 3 for k, v in module.state_dict().items() if "tracked" not in k}
    load_tensors(module, {**state, "fc.weight": torch.zeros(9)}, "f.pth", spare=("fc.",))
    assert all(torch.equal(module.state_dict()[key], value) for key, value in state.items())


def test_a_long_list_of_misfits_is_cut() -> None:
    state = {f"extra{number}": torch.zeros(1) for number in range(10)}
    with pytest.raises(DataError, match=r"unexpected extra0, extra1, extra2 and 7 more$"):
        load_tensors(nn.Identity(), state, "f.pth", spare=())
