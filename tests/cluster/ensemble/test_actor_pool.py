"""Number of actors, and members whose actor is out of memory."""

import re
from pathlib import Path
from typing import Any

import pytest
import ray
from rich.console import Console

from dmlray.cluster.ensemble import member_queue as module
from dmlray.cluster.ensemble.actor_pool import Memory, Share, share_of
from dmlray.cluster.ensemble.member_queue import MemberQueue
from dmlray.cluster.resources import Cluster, Node, current_cluster
from dmlray.errors import ConfigError, ResourceError, RunError
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display, SilentDisplay
from tests.cluster import fake_actors

GIB = 1 << 30


def cluster(*nodes: tuple[float, float]) -> Cluster:
    each = tuple(Node(*node) for node in nodes)
    return Cluster(sum(n.cpus for n in each), sum(n.gpus for n in each), len(each), each)


@pytest.mark.parametrize(
    ("nodes", "members_per_gpu", "cpus", "capacity"),
    [
        ([(2, 0)], 1, 1, 2),  # no GPU: one member per core
        ([(3.5, 0), (1, 0)], 4, 1, 4),  # cores of two nodes are not added up
        ([(16, 8)], 1, 2, 8),  # all cores: they prepare the GPUs' batches
        ([(100, 8)], 1, 12, 8),
        ([(100, 8)], 2, 6, 16),
        ([(100, 8), (64, 16)], 1, 4, 24),
        ([(16, 8)], 3, 0.6666, 24),  # 3 * 0.3333 of a GPU, 24 * 0.6666 of the cores
        ([(64, 0), (4, 8)], 1, 0.5, 8),  # the first node's cores do not help the second's GPUs
        ([(0, 2)], 2, 0, 4),
    ],
)
def test_actors_are_counted_node_by_node(
    nodes: list[tuple[float, float]], members_per_gpu: int, cpus: float, capacity: int
) -> None:
    share = share_of(cluster(*nodes), members_per_gpu)
    assert share.cpus == pytest.approx(cpus)
    assert share.capacity(cluster(*nodes)) == capacity
    assert share.capacity(cluster()) == 0


@pytest.mark.parametrize("members", [0, -1, 101])
def test_an_invalid_number_of_members_per_gpu_is_refused(members: int) -> None:
    with pytest.raises(ConfigError, match=f"{members} is not allowed. Allowed: 1 to 100"):
        share_of(cluster((4, 1)), members)


def test_a_cluster_without_a_core_is_refused() -> None:
    with pytest.raises(
        ResourceError, match=r"asked for 1 CPU and 0 GPU on one node, but .* 0 CPU and 0 GPU"
    ):
        share_of(cluster((0, 0)), 1)


def test_a_gpu_holds_what_fits_with_a_margin() -> None:
    assert Memory(10 * GIB, 80 * GIB).fits() == 7
    assert Memory(90 * GIB, 80 * GIB).fits() == 0
    assert Share(1.0, 7).gpus * 7 <= 1


def trained(
    tmp_path: Path,
    actor: type,
    members_per_gpu: int,
    size: int = 3,
    display: Display | None = None,
) -> list[str]:
    """Train members with `actor` and return the log of each."""
    ray.cloudpickle.register_pickle_by_value(fake_actors)
    folder = RunFolder(tmp_path / "run")
    plan: Any = fake_actors.Plan(size)
    queue = MemberQueue(plan, folder, current_cluster(), members_per_gpu, actor)
    queue.run(display or SilentDisplay())
    return [(folder.member(index).path / "log").read_text() for index in range(size)]


@pytest.mark.slow
def test_shares_are_used_after_one_member_was_measured_alone(
    tmp_path: Path, fake_gpus: None
) -> None:
    first, *others = trained(tmp_path, fake_actors.FakeActor, members_per_gpu=4)
    assert first.startswith("probe 1.00 on ")
    assert "train 0.25 on " in first
    assert all(log.startswith("train 0.25 on ") and log.count("\n") == 1 for log in others)
    assert {log.split()[-1] for log in (first, *others)} <= {"0", "1"}


@pytest.mark.slow
def test_members_that_do_not_fit_are_refused_with_the_number_that_does(
    tmp_path: Path, fake_gpus: None
) -> None:
    message = r"4 members of 30\.0 GiB do not fit a GPU of 80\.0 GiB. Allowed: at most 2"
    with pytest.raises(ResourceError, match=message):
        trained(tmp_path, fake_actors.TooLarge, members_per_gpu=4)


@pytest.mark.slow
def test_out_of_memory_halves_the_share_and_retries_each_member_once(
    tmp_path: Path, fake_gpus: None
) -> None:
    with (console := Console(width=1000)).capture() as output:
        logs = trained(tmp_path, fake_actors.Grows, 4, size=2, display=Display(console))
    trainings = [re.findall(r"^train (\S+)", log, re.MULTILINE) for log in logs]
    assert {("0.25", "0.50")} <= {*map(tuple, trainings)} <= {("0.25", "0.50"), ("0.50",)}
    retried = re.findall(
        r"member (\d): GPU out of memory; from now on 2 members per GPU", output.get()
    )
    assert sorted(map(int, retried)) == [
        i for i, shares in enumerate(trainings) if len(shares) == 2
    ]


@pytest.mark.slow
def test_a_member_that_is_out_of_memory_twice_fails_with_the_remedy(
    tmp_path: Path, fake_gpus: None
) -> None:
    message = r"member 0 failed: out of memory with 2 members per GPU as well: resume the run with "
    with pytest.raises(RunError, match=message + "`members_per_gpu` 1"):
        trained(tmp_path, fake_actors.GrowsTooMuch, members_per_gpu=4, size=1)
    log = (tmp_path / "run/members/000/log").read_text()
    assert re.findall(r"^train (\S+)", log, re.MULTILINE) == ["0.25", "0.50"]


@pytest.mark.slow
def test_a_member_too_large_for_a_whole_gpu_fails_with_the_reason(
    tmp_path: Path, fake_gpus: None
) -> None:
    with pytest.raises(
        RunError, match="member 0 failed: out of memory with one member per GPU: use"
    ):
        trained(tmp_path, fake_actors.NeverFits, members_per_gpu=1, size=1)


@pytest.mark.slow
def test_a_pool_does_not_wait_for_ever_for_a_node(
    tmp_path: Path, fake_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    monkeypatch.setattr(module, "current_cluster", lambda: cluster((4, 0)))
    plan: Any = fake_actors.Plan(2)
    folder = RunFolder(tmp_path / "run")
    pool = MemberQueue(plan, folder, cluster((4, 2)), 1, fake_actors.FakeActor)
    with pytest.raises(RunError, match=r"no node is left"):
        pool.run(SilentDisplay())
