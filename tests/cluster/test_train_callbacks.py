"""A training ends at a user error and when its workers no longer fit; otherwise it restarts."""

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray.train import RunConfig, ScalingConfig
from ray.train.backend import BackendConfig

from dmlray.cluster import train, train_callbacks
from dmlray.cluster.background import run_watched
from dmlray.cluster.ensemble.actor_pool import USABLE
from dmlray.cluster.ensemble.member_actor import cap_memory
from dmlray.cluster.resources import Cluster, Node
from dmlray.cluster.search import run
from dmlray.cluster.search.run import Resources
from dmlray.cluster.train_callbacks import FailOnUserError, FailWithoutResources
from dmlray.cluster.trainer import Trainer
from dmlray.errors import DataError, ResourceError, RunError
from dmlray.learn.device import loader_threads
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import SilentDisplay
from tests.toy_data import toy_words

BEFORE, AFTER = Cluster.of([Node(8, 0), Node(16, 2)]), Cluster.of([Node(8, 0), Node(16, 1)])


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets the current time and cluster."""
    now: list[Any] = [0.0, BEFORE]
    monkeypatch.setattr("dmlray.cluster.resources.time.monotonic", lambda: now[0])
    for module in (run, train_callbacks):
        monkeypatch.setattr(module, "current_cluster", lambda: now[1])

    def at(time: float, cluster: Cluster) -> None:
        now[:] = [time, cluster]

    return at


def test_a_training_without_its_nodes_ends_after_two_minutes(at: Any) -> None:
    callback = FailWithoutResources(workers=2, cpus=8, gpus=1)
    for moment, cluster in [(0, BEFORE), (60, AFTER), (120, AFTER), (150, BEFORE), (160, AFTER)]:
        at(moment, cluster)
        callback.before_controller_execute_failure_decision(None)
    at(290, AFTER)
    with pytest.raises(ResourceError, match=r"^a node was lost: asked for 2 processes of 8 CPU"):
        callback.before_controller_execute_failure_decision(None)


def test_a_search_without_its_nodes_ends_and_can_be_resumed(at: Any) -> None:
    check = run._CapacityCheck(Resources(8, 1, workers=2, at_once=1))
    for moment, cluster in [(0, BEFORE), (60, AFTER), (120, AFTER)]:
        at(moment, cluster)
        check()
    at(180, AFTER)
    with pytest.raises(RunError, match=r"enough for 1$"):
        check()


def test_only_a_user_error_ends_a_training_at_once() -> None:
    callback, mistake = FailOnUserError(), DataError("7.png: damaged")
    callback.after_exception(None, {0: RuntimeError("a worker's process died")})
    with pytest.raises(DataError) as caught:
        callback.after_exception(None, {0: RuntimeError("connection closed"), 1: mistake})
    assert caught.value is mistake


def test_a_worker_that_is_out_of_memory_says_what_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: out of memory")

    alone = SimpleNamespace(get_world_rank=lambda: 0, get_world_size=lambda: 1)
    monkeypatch.setattr(train, "get_context", lambda: alone)
    monkeypatch.setattr(train, "run_training", full)
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment
    with pytest.raises(RunError, match=r"^out of memory: try a smaller data\.batch_size"):
        train._loop(plan, RunFolder(tmp_path), 1, False)


@pytest.mark.slow
def test_a_user_error_of_one_worker_ends_all(
    toy_images: Path, tmp_path: Path, fake_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"

    def fails(plan: Any, folder: Any, report: Any, runtime: Any) -> None:
        with log.open("a") as file:
            file.write("x")
        if runtime.group.rank == 1:
            raise DataError("7.png: cannot be read")
        torch.distributed.barrier()  # blocks until this worker is ended

    monkeypatch.setattr(train, "run_training", fails)
    ray.cloudpickle.register_pickle_by_value(train)  # with `fails` in it
    words = [*toy_words(toy_images), "budget.workers=2"]
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment
    try:
        with pytest.raises(DataError, match=r"^7\.png: cannot be read$"):
            train.train(plan, RunFolder(tmp_path), Cluster(4, 0, 1), SilentDisplay())
    finally:
        ray.cloudpickle.unregister_pickle_by_value(train)
    assert log.read_text() == "xx"


@pytest.mark.slow
def test_an_interrupted_training_ends_before_ray_and_frees_its_resources(
    tmp_path: Path, fake_gpus: None
) -> None:
    """Else its thread would wait for Ray as it shuts down, which crashed some commands."""
    log, ended = tmp_path / "log", threading.Event()

    def work() -> None:
        log.write_text("x")
        time.sleep(600)

    trainer = Trainer(
        work,
        backend_config=BackendConfig(),
        scaling_config=ScalingConfig(num_workers=1, use_gpu=True),
        run_config=RunConfig(storage_path=str(tmp_path)),
    )

    def fit() -> None:
        try:
            trainer.fit()
        finally:
            ended.set()

    def interrupt() -> None:
        if log.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_watched(fit, trainer.stop, interrupt)
    assert ended.is_set()
    end = time.monotonic() + 20
    while ray.available_resources().get("GPU") != 2:
        assert time.monotonic() < end, "an interrupted training still holds its GPU"
        time.sleep(0.1)


@pytest.mark.slow
def test_a_training_that_is_stopped_before_it_begins_starts_nothing(
    tmp_path: Path, fake_gpus: None
) -> None:
    trainer = Trainer(lambda: None, run_config=RunConfig(storage_path=str(tmp_path)))
    trainer.stop()
    with pytest.raises(RuntimeError, match="stopped"):
        trainer.fit()


@pytest.mark.parametrize(
    ("device", "cpus", "threads"),
    [("cpu", 8, 0), ("cuda", 1, 0), ("cuda", 2, 1), ("cuda", 12, 11), ("cuda", 192, 16)],
)
def test_loader_threads_use_the_other_cores(device: str, cpus: int, threads: int) -> None:
    assert loader_threads(torch.device(device), cpus) == threads


@pytest.mark.parametrize(
    ("device", "share", "expected"),
    [("cuda", 0.25, 0.25 * USABLE), ("cuda", 1.0, None), ("cuda", 0.0, None), ("cpu", 0.5, None)],
)
def test_a_member_may_not_take_more_than_its_share_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, share: float, expected: float | None
) -> None:
    calls: list[float] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, device: calls.append(part)
    )
    cap_memory(torch.device(device), share)
    assert calls == [] if expected is None else calls == [expected]
