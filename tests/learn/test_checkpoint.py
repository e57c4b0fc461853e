"""A damaged or foreign checkpoint is refused with one sentence that names the remedy."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from dmlray.errors import DamagedCheckpointError, DataError
from dmlray.learn import checkpoint
from dmlray.learn.state import TrainProgress, TrainState
from tests.learn.checkpoint_mutants import CHECKPOINTS, OPTIMIZERS
from tests.learn.run_mutants import Change


def saved(path: Path) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A learner that took a step, and its optimizer, written to `path`."""
    torch.manual_seed(0)
    learner = nn.Linear(40, 40)
    optimizer = torch.optim.AdamW(learner.parameters())
    learner(torch.randn(4, 40)).sum().backward()
    optimizer.step()
    checkpoint.save(path, TrainState(learner, optimizer, progress=TrainProgress(3, 0.5, 2)))
    return learner, optimizer


def test_a_saved_state_is_loaded(tmp_path: Path) -> None:
    learner, optimizer = saved(tmp_path / "last.pt")
    other = nn.Linear(40, 40)
    again = torch.optim.AdamW(other.parameters())
    assert checkpoint.load(tmp_path / "last.pt", TrainState(other, again)) == TrainProgress(
        3, 0.5, 2
    )
    torch.testing.assert_close(other.state_dict(), learner.state_dict(), rtol=0, atol=0)
    loaded, expected = again.state_dict()["state"], optimizer.state_dict()["state"]
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-10],
        lambda whole: bytes(len(whole)),
        lambda whole: whole[:2000] + bytes(500) + whole[2500:],  # torch reads this without an error
        lambda whole: os.urandom(3000),
        lambda whole: b"learner and progress",
    ],
)
def test_damage_is_refused_with_a_remedy(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "checkpoints" / "last.pt"
    learner, optimizer = saved(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        DamagedCheckpointError, match=r"is damaged .*; delete .*checkpoints"
    ) as caught:
        checkpoint.load(path, TrainState(learner, optimizer))
    assert "\n" not in str(caught.value)


def test_another_torch_file_is_not_a_checkpoint(tmp_path: Path) -> None:
    learner, _ = saved(tmp_path / "last.pt")
    torch.save({"learner": {}}, tmp_path / "last.pt")
    with pytest.raises(DamagedCheckpointError, match="it holds other content"):
        checkpoint.load(tmp_path / "last.pt", TrainState(learner))


def test_a_missing_checkpoint_and_an_unreadable_one_are_different_errors(tmp_path: Path) -> None:
    learner, _ = saved(tmp_path / "last.pt")
    with pytest.raises(DamagedCheckpointError, match="has not finished an epoch"):
        checkpoint.load(tmp_path / "none.pt", TrainState(learner))
    with pytest.raises(DataError, match="cannot be read: Is a directory") as caught:
        checkpoint.load(tmp_path, TrainState(learner))
    assert not isinstance(caught.value, DamagedCheckpointError)  # must not lead to deletion


@pytest.mark.parametrize(
    "change",
    [
        change
        for kind, change in {**CHECKPOINTS, **OPTIMIZERS}.items()
        if kind not in ("epoch too many", "epoch not the last")  # only checked against the plan
    ],
    ids=[
        k
        for k in {**CHECKPOINTS, **OPTIMIZERS}
        if k not in ("epoch too many", "epoch not the last")
    ],
)
def test_a_valid_file_of_other_tensors_is_refused_and_changes_nothing(
    tmp_path: Path, change: Change
) -> None:
    saved(tmp_path / "last.pt")
    change(tmp_path / "last.pt")
    fresh = nn.Linear(40, 40)
    before = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    with pytest.raises(DataError) as caught:
        checkpoint.load(
            tmp_path / "last.pt",
            TrainState(fresh, torch.optim.AdamW(fresh.parameters()), "seed 0"),
        )
    assert "last.pt: is " in str(caught.value) or "NaN" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    torch.testing.assert_close(fresh.state_dict(), before, rtol=0, atol=0)


def test_a_checkpoint_of_an_older_run_names_no_training(tmp_path: Path) -> None:
    learner, optimizer = saved(tmp_path / "last.pt")
    assert (
        checkpoint.load(tmp_path / "last.pt", TrainState(learner, optimizer, "seed 5")).epoch == 3
    )


def test_the_settings_of_an_optimizer_are_those_of_the_plan(tmp_path: Path) -> None:
    learner, _ = saved(tmp_path / "last.pt")
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.5, weight_decay=0.25)
    checkpoint.load(tmp_path / "last.pt", TrainState(learner, optimizer))
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (
        0.5,
        0.25,
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
        lambda parameters: torch.optim.Adam(parameters),
        lambda parameters: torch.optim.RMSprop(parameters),
        lambda parameters: torch.optim.RMSprop(parameters, momentum=0.9),
    ],
)
def test_every_optimizer_resumes(
    tmp_path: Path, make: Callable[..., torch.optim.Optimizer]
) -> None:
    learner, frozen = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
    parameters = [*learner.parameters(), *frozen.parameters()]
    optimizer, again = make(parameters), make(parameters)
    learner(torch.randn(2, 4)).sum().backward()
    optimizer.step()
    checkpoint.save(tmp_path / "last.pt", TrainState(learner, optimizer, progress=TrainProgress(1)))
    checkpoint.load(tmp_path / "last.pt", TrainState(learner, again))
    loaded, expected = again.state_dict()["state"], optimizer.state_dict()["state"]
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)
