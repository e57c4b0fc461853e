"""Training does not wait for the disk, and write errors are not lost."""

import copy
import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dmlray.learn import checkpoint, loop, metrics_log
from dmlray.learn.checkpoint_writer import CheckpointWriter
from dmlray.learn.class_split import load_dataset
from dmlray.learn.run import class_split
from dmlray.learn.runtime import Runtime
from dmlray.learn.state import TrainProgress, TrainState
from dmlray.learn.step import step as one_step
from dmlray.learn.trainer import Training
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.learn.fake_gpu import fake_gpu
from tests.toy_data import draw_images, toy_words


class SlowDisk:
    """Delay every checkpoint until `go` is set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.go, self.written, self._write = threading.Event(), list[str](), checkpoint.write
        patch.setattr(checkpoint, "write", self.write)

    def write(self, path: Path, content: dict[str, Any]) -> None:
        assert self.go.wait(60)
        self.written.append(path.name)
        self._write(path, content)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowDisk]:
    disk = SlowDisk(monkeypatch)
    yield disk
    disk.go.set()


def stepped(steps: int) -> tuple[nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(0)
    learner = nn.Linear(3, 3)
    optimizer = torch.optim.AdamW(learner.parameters())
    for _ in range(steps):
        step(learner, optimizer)
    return learner, optimizer


def step(learner: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    learner(torch.ones(2, 3)).sum().backward()
    optimizer.step()


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    file, words = Path("experiments/proxy_anchor_demo.yaml"), toy_words(draw_images(tmp_path / "i"))
    return read_experiment(file, [*words, "protocol.selection=best_on_test"]).experiment


def training_of(plan: Experiment, folder: RunFolder) -> Training:
    here = Runtime(torch.device("cpu"))
    return Training(plan, class_split(plan, load_dataset(plan)), folder, here, keep_best=True)


def test_the_next_epoch_starts_during_a_write(
    plan: Experiment, tmp_path: Path, disk: SlowDisk
) -> None:
    folder = RunFolder(tmp_path / "run")
    epochs = training_of(plan, folder).epochs()
    assert next(epochs).number == 1
    assert [line["epoch"] for line in metrics_log.read(folder.metrics)] == [1]
    assert not folder.last_checkpoint.exists()
    assert not disk.written
    disk.go.set()
    assert [epoch.number for epoch in epochs] == [2]
    assert disk.written[:2] == ["best.pt", "last.pt"]
    assert disk.written[-1] == "last.pt"
    assert checkpoint.read_progress(folder.last_checkpoint).epoch == 2


def test_a_disk_as_slow_as_an_epoch_costs_the_loop_nothing(
    plan: Experiment, tmp_path: Path, disk: SlowDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first write goes on until the last step of the next epoch: no step waits for it."""
    steps, take = list[int](), one_step

    def counted(*given: Any) -> Any:
        steps.append(len(disk.written))
        terms = take(*given)
        if len(steps) == 2 * per_epoch:
            disk.go.set()
        return terms

    monkeypatch.setattr(loop, "step", counted)
    training = training_of(plan, RunFolder(tmp_path / "run"))
    per_epoch = training.train_batches().batches_per_epoch
    assert [epoch.number for epoch in training.epochs()] == [1, 2]
    assert steps == 2 * per_epoch * [0]  # all were taken before anything was written
    assert disk.written[:2] == ["best.pt", "last.pt"]


def test_a_gpu_copies_into_pinned_memory_and_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only such a copy runs beside the GPU's next steps."""
    pinned, empty_like = list[torch.Size](), torch.empty_like

    def noted(like: torch.Tensor, *, pin_memory: bool = False, **options: Any) -> torch.Tensor:
        if pin_memory and options.get("device") == "cpu":
            pinned.append(like.shape)
        return empty_like(like, pin_memory=pin_memory, **options)

    learner, optimizer = stepped(1)
    with fake_gpu() as waits, CheckpointWriter() as writer:
        moments = [part for state in optimizer.state.values() for part in state.values()]
        content = TrainState(learner.to("cuda"), optimizer, progress=TrainProgress(1)).state_dict()
        content["optimizer"] = moved = copy.deepcopy(content["optimizer"])
        for state in moved["state"].values():
            state.update({name: part.to("cuda") for name, part in state.items()})
        waits.clear()
        monkeypatch.setattr(torch, "empty_like", noted)
        writer.save(tmp_path / "last.pt", None, content)
        monkeypatch.undo()
        assert not waits
    assert sorted(pinned) == sorted(p.shape for p in [*learner.parameters(), *moments])
    then, its_optimizer = stepped(1)
    again, other = stepped(0)
    checkpoint.load(tmp_path / "last.pt", TrainState(again, other))
    torch.testing.assert_close(again.state_dict(), then.state_dict(), rtol=0, atol=0)
    ours, theirs = other.state_dict()["state"], its_optimizer.state_dict()["state"]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_the_log_is_at_most_one_epoch_ahead(
    plan: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, seen, write = RunFolder(tmp_path / "run"), list[tuple[int, int]](), checkpoint.write

    def watched(path: Path, content: dict[str, Any]) -> None:
        seen.append((content["progress"]["epoch"], len(metrics_log.read(folder.metrics))))
        write(path, content)

    monkeypatch.setattr(checkpoint, "write", watched)
    assert len(list(training_of(plan, folder).epochs())) == 2
    assert all(logged == epoch for epoch, logged in seen)


def test_the_state_at_the_time_of_saving_is_written(tmp_path: Path, disk: SlowDisk) -> None:
    learner, optimizer = stepped(1)
    with CheckpointWriter() as writer:
        content = TrainState(learner, optimizer, progress=TrainProgress(1, 0.5, 1)).state_dict()
        writer.save(tmp_path / "last.pt", tmp_path / "best.pt", content)
        step(learner, optimizer)
        disk.go.set()
    assert disk.written == ["best.pt", "last.pt"]
    then, its_optimizer = stepped(1)
    for path in (tmp_path / "best.pt", tmp_path / "last.pt"):
        other, again = stepped(0)
        checkpoint.load(path, TrainState(other, again if path.name == "last.pt" else None))
        torch.testing.assert_close(other.state_dict(), then.state_dict(), rtol=0, atol=0)
    loaded, expected = again.state_dict()["state"], its_optimizer.state_dict()["state"]
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)
    assert "optimizer" not in torch.load(tmp_path / "best.pt", weights_only=True)


def test_a_full_disk_ends_the_training_at_the_next_epoch_or_the_end(
    plan: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: dict[str, Any]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoint, "write", full)
    folder = RunFolder(tmp_path / "run")
    epochs = training_of(plan, folder).epochs()
    assert next(epochs).number == 1
    with pytest.raises(OSError, match="No space left"):
        next(epochs)
    assert len(metrics_log.read(folder.metrics)) == 1
    learner, optimizer = stepped(1)
    content = TrainState(learner, optimizer, progress=TrainProgress(1)).state_dict()
    with pytest.raises(OSError, match="No space left"), CheckpointWriter() as writer:
        writer.save(tmp_path / "last.pt", None, content)
    with pytest.raises(KeyError), CheckpointWriter() as writer:  # the error of the block
        writer.save(tmp_path / "last.pt", None, content)
        raise KeyError


def test_closing_the_generator_waits_for_the_write(plan: Experiment, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    epochs = training_of(plan, folder).epochs()
    next(epochs)
    epochs.close()
    assert checkpoint.read_progress(folder.last_checkpoint).epoch == 1
