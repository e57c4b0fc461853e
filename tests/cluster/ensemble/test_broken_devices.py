"""Crashed actors are replaced, GPUs and nodes with repeated crashes dropped, no member is lost."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ray.exceptions import ActorDiedError
from rich.console import Console

from dmlray.cluster.ensemble import actor_pool, member_queue
from dmlray.cluster.ensemble.actor_pool import Memory
from dmlray.cluster.ensemble.member_queue import MemberQueue
from dmlray.errors import DataError, ResourceError, RunError
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display
from tests.cluster import fake_actors
from tests.cluster.in_process_ray import Actor, InProcessRay, Work

ASSERT = "CUDA error: device-side assert triggered"
GIB = 1 << 30
Result = tuple[InProcessRay, str, str]  # the fake, the displayed text, the error


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(
        nodes: list[tuple[float, float]],
        work: Work,
        size: int = 24,
        members_per_gpu: int = 1,
        settings: int = 1,
        unusable: Any = (),
    ) -> Result:
        ray = InProcessRay(nodes, work)
        ray.unusable = dict.fromkeys(unusable, "torch cannot use this GPU")
        for module in (member_queue, actor_pool):
            monkeypatch.setattr(module, "ray", ray)
        monkeypatch.setattr(member_queue, "current_cluster", ray.current_cluster)
        monkeypatch.setattr(member_queue, "_POLL", 0.0)
        failure = ""
        with (console := Console(width=1000)).capture() as shown:
            plan: Any = fake_actors.Plan(size, settings)
            pool = MemberQueue(
                plan, RunFolder(tmp_path / "run"), ray.current_cluster(), members_per_gpu
            )
            try:
                pool.run(Display(console))
            except (RunError, ResourceError) as error:
                failure = str(error)
        assert not any(actor.alive for actor in ray.actors)
        return ray, shown.get(), failure

    return run


def trained(ray: InProcessRay) -> list[int]:
    """Return the members in the order of their assignment, with retries."""
    return [member for what, member, _ in ray.log if what == "train"]


def poisoned_once(actor: Actor, what: str, member: int) -> None:
    """Member 3 breaks the CUDA context once; the process then always fails."""
    if member == 3 and not any("poison" in other.memory for other in actor.ray.actors):
        actor.memory["poison"] = True
    if "poison" in actor.memory:
        raise torch.AcceleratorError(ASSERT)


def test_a_broken_context_costs_one_try_of_one_member(run: Any) -> None:
    ray, shown, failure = run([(8, 2)], poisoned_once)
    assert failure == ""
    assert sorted(trained(ray)) == sorted([*range(24), 3])
    assert shown.count("device-side assert") == 1
    assert len(ray.actors) == 3  # one more than there are GPUs


@pytest.mark.parametrize("error", [torch.AcceleratorError(ASSERT), ActorDiedError()], ids=type)
@pytest.mark.parametrize(
    ("nodes", "broken", "members_per_gpu"),
    [
        ([(8, 2)], ("node0", "0"), 1),
        ([(8, 4)], ("node0", "1"), 2),
        ([(8, 1), (8, 1)], ("node1", "0"), 1),
        ([(2, 0), (2, 0)], ("node0",), 1),
    ],
)
def test_a_location_that_crashes_every_actor_is_not_used_any_more(
    run: Any, nodes: Any, broken: tuple[str, ...], members_per_gpu: int, error: Exception
) -> None:
    def work(actor: Actor, what: str, member: int) -> Memory | None:
        if (actor.where.node, *actor.where.gpus) == broken:
            raise error
        return Memory(GIB, 80 * GIB) if what == "probe" else None

    ray, shown, failure = run(nodes, work, members_per_gpu=members_per_gpu)
    assert failure == ""
    assert set(trained(ray)) == set(range(24))
    assert shown.count("it is not used any more") == 1
    assert len(ray.log) <= 24 + 8  # the failures are few


@pytest.mark.parametrize(
    ("nodes", "unusable", "members_per_gpu"),
    [
        ([(8, 2)], [("node0", "0")], 1),
        ([(8, 3)], [("node0", "0"), ("node0", "2")], 1),
        ([(8, 4)], [("node0", "1")], 2),
        ([(8, 1), (8, 1)], [("node0", "0")], 3),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_dropped_and_costs_no_member(
    run: Any, nodes: Any, unusable: list[tuple[str, str]], members_per_gpu: int
) -> None:
    def work(actor: Actor, what: str, member: int) -> Memory | None:
        assert (actor.where.node, *actor.where.gpus) not in unusable
        return Memory(GIB, 80 * GIB) if what == "probe" else None

    ray, shown, failure = run(nodes, work, members_per_gpu=members_per_gpu, unusable=unusable)
    assert failure == ""
    assert sorted(trained(ray)) == list(range(24))
    assert shown.count("is not used: torch cannot use this GPU") == len(unusable)


def test_an_ensemble_ends_where_torch_can_use_no_gpu(run: Any) -> None:
    gpus = [("node0", "0"), ("node0", "1")]
    ray, _, failure = run([(8, 2)], lambda *_: None, unusable=gpus)
    assert failure.count("torch cannot use this GPU") == 2
    assert ray.log == []


def test_a_member_that_fails_everywhere_fails_alone_after_three_tries(run: Any) -> None:
    def work(actor: Actor, what: str, member: int) -> None:
        if member == 5:
            raise ValueError("member 5 alone")

    ray, shown, failure = run([(8, 4)], work)
    assert failure == "member 5 failed: ValueError: member 5 alone"
    assert sorted(trained(ray)) == sorted([*range(24), 5, 5])
    assert "not used any more" not in shown
    locations = [where for what, member, where in ray.log if member == 5]
    assert locations[0] != locations[1] != locations[2]


@pytest.mark.parametrize("nodes", [[(8, 2)], [(2, 0)], [(8, 1)]])
def test_where_all_members_fail_all_of_them_end_after_three_tries(run: Any, nodes: Any) -> None:
    def work(actor: Actor, what: str, member: int) -> None:
        raise RuntimeError("a bug")

    ray, _, failure = run(nodes, work, size=6)
    assert failure.count("failed: RuntimeError: a bug") == 6
    assert len(ray.log) == 3 * 6


@pytest.mark.parametrize(
    "error", [DataError("7.png: damaged"), torch.OutOfMemoryError(), MemoryError()]
)
def test_a_user_error_or_a_plain_out_of_memory_keeps_the_process(
    run: Any, error: Exception
) -> None:
    def work(actor: Actor, what: str, member: int) -> None:
        if member % 2:
            raise error

    ray, _, failure = run([(8, 2)], work, size=8)
    assert failure.count("failed") == 4
    assert len(ray.actors) == 2
    assert sorted(trained(ray)) == list(range(8))  # a retry would not help


WORDS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    torch.AcceleratorError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]


@pytest.mark.parametrize("error", WORDS, ids=str)
def test_out_of_memory_halves_the_share_in_every_wording(run: Any, error: Exception) -> None:
    def work(actor: Actor, what: str, member: int) -> Memory | None:
        if actor.size[1] < 0.4:
            raise error
        return Memory(GIB, 80 * GIB) if what == "probe" else None

    ray, shown, failure = run([(8, 2)], work, size=8, members_per_gpu=4)
    assert failure == ""
    assert "from now on 2 members per GPU" in shown
    assert set(trained(ray)) == set(range(8))


def test_out_of_memory_on_a_cpu_names_the_remedy(run: Any) -> None:
    def work(actor: Actor, what: str, member: int) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")

    _, _, failure = run([(2, 0)], work, size=1)
    assert failure == ("member 0 failed: out of memory: use a smaller data.batch_size in a new run")


@pytest.mark.parametrize(("nodes", "settings"), [([(8, 1)], 3), ([(8, 2)], 3), ([(8, 8)], 2)])
def test_each_setting_is_probed_before_any_gpu_is_shared(
    run: Any, nodes: Any, settings: int
) -> None:
    def work(actor: Actor, what: str, member: int) -> Memory | None:
        assert actor.size[1] == (1 if what == "probe" else 0.25)
        return Memory(GIB, 80 * GIB) if what == "probe" else None

    ray, _, failure = run(nodes, work, size=12, members_per_gpu=4, settings=settings)
    assert failure == ""
    assert [member for what, member, _ in ray.log if what == "probe"] == list(range(settings))
    assert [what for what, _, _ in ray.log[:settings]] == ["probe"] * settings
    assert sorted(trained(ray)) == list(range(12))


def test_the_largest_setting_decides_how_many_members_fit(run: Any) -> None:
    def work(actor: Actor, what: str, member: int) -> Memory | None:
        return Memory((2, 30)[member % 2] * GIB, 80 * GIB) if what == "probe" else None

    ray, _, failure = run([(8, 2)], work, size=8, members_per_gpu=4, settings=2)
    assert "4 members of 30.0 GiB do not fit a GPU of 80.0 GiB. Allowed: at most 2" in failure
    assert trained(ray) == []
