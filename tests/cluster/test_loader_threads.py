"""Every process with a GPU has loader threads on its other cores."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from dmlray.cluster import train
from dmlray.cluster.ensemble import member_actor
from dmlray.cluster.search import fold_trainer
from dmlray.learn.runtime import Runtime, whole_machine
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.learn.fake_gpu import CPU, GPU, fake_gpu

CORES = 12


@pytest.fixture
def runtimes(monkeypatch: pytest.MonkeyPatch) -> list[Runtime]:
    """Runtime of each process, with a fake Ray."""
    recorded: list[Runtime] = []
    share = SimpleNamespace(get_assigned_resources=lambda: {"GPU": 0.5, "CPU": float(CORES)})
    alone = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    ray = SimpleNamespace(get_runtime_context=lambda: share)
    monkeypatch.setattr(member_actor, "ray", ray)
    monkeypatch.setattr(train, "get_context", lambda: alone)
    for module in (train, member_actor, fold_trainer):
        monkeypatch.setattr(module, "device_of", lambda gpu: GPU if gpu else CPU)
        monkeypatch.setattr(module, "set_threads", lambda threads: None)

    def run_training(plan: Any, folder: Any, report: Any, runtime: Runtime, *_: Any) -> None:
        recorded.append(runtime)

    monkeypatch.setattr(member_actor, "run_training", run_training)
    monkeypatch.setattr(member_actor, "EpochLogger", lambda plan, folder: Mock())
    monkeypatch.setattr(member_actor, "cap_memory", lambda device, share: None)
    monkeypatch.setattr(train, "_train", lambda plan, folder, runtime: recorded.append(runtime))
    monkeypatch.setattr(
        fold_trainer, "fold_epochs", lambda p, f, runtime, n: recorded.append(runtime)
    )
    return recorded


def test_members_folds_and_trainings(runtimes: list[Runtime], tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    plan = read_experiment(Path("experiments/margin_demo.yaml")).experiment
    member_actor.Worker().train(plan, folder, with_zero_shot=False)
    list(fold_trainer._steps(plan, folder, range(1), gpu=True, threads=CORES))
    train._loop(plan, folder, CORES, gpu=True)
    assert [(runtime.device, runtime.threads) for runtime in runtimes] == 3 * [(GPU, CORES - 1)]


def test_evaluation_and_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: CORES)
    with fake_gpu():
        runtime = whole_machine()
    assert (runtime.device, runtime.threads) == (GPU, CORES - 1)
