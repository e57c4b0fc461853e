"""Worker processes of `test_process_group.py`, which share each batch."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import torch
import torch.distributed as dist
from torch import Tensor

from dmlray.errors import DataError, DmlrayError
from dmlray.learn import gradient_average, run
from dmlray.learn.loop import Epoch, fit
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.state import TrainState
from dmlray.learn.trainer import build_learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override
from dmlray.plans.run_folder import RunFolder

RESUMED = "validation"


def work(rank: int, size: int, plans: dict[str, Experiment], root: Path) -> None:
    """Run every plan as one of `size` workers; only the main worker's root has all files."""
    torch.set_num_threads(1)
    gradient_average.BUCKET = 1 << 12  # several buckets, in flight at once
    meeting = f"file://{root / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    runtime = Runtime(torch.device("cpu"), group=ProcessGroup(rank, size))
    if rank:
        vars(run)["clustering_scores"] = None  # k-means runs on the first worker alone
    seen = root / f"elsewhere{rank}" if rank else root
    for name, plan in plans.items():
        run_training(plan, RunFolder(seen / name), lambda epoch: None, runtime, name == RESUMED)
    (root / f"resumed{rank}.txt").write_text(resume(plans[RESUMED], seen / RESUMED, runtime))
    (root / f"damaged{rank}.txt").write_text(damage(plans[RESUMED], seen, runtime))
    (root / f"images{rank}.txt").write_text(other_images(plans[RESUMED], root, runtime))
    (root / f"diverged{rank}.txt").write_text(diverge(plans[RESUMED], runtime))
    assert not rank or not seen.exists()
    dist.barrier()
    dist.destroy_process_group()


def resume(plan: Experiment, path: Path, runtime: Runtime) -> str:
    """Score a finished run again from its checkpoints: which epochs are reported, and if equal."""
    folder, epochs = RunFolder(path), list[int]()

    def report(epoch: Epoch) -> None:
        epochs.append(epoch.number)

    before = run_training(plan, folder, report, runtime)
    if runtime.group.is_main:
        folder.scores.unlink()
    after = run_training(plan, folder, report, runtime)
    return f"epochs {epochs}, {before == after}"


def damage(plan: Experiment, root: Path, runtime: Runtime) -> str:
    """Resume a copy of the run with a damaged checkpoint; write what is raised."""
    folder = RunFolder(root / "damaged")
    if runtime.group.is_main:
        copytree(root / RESUMED, folder.path)
        folder.scores.unlink()
        folder.last_checkpoint.write_bytes(b"damaged")
    try:
        run_training(plan, folder, lambda epoch: None, runtime)
    except DataError as error:
        return f"{type(error).__name__} {error}"
    return "nothing"


def other_images(plan: Experiment, root: Path, runtime: Runtime) -> str:
    """Start a run of which the last worker lacks one image; write what is raised."""
    rank = runtime.group.rank
    images = copytree(plan.data.root, root / f"images{rank}")
    if rank == runtime.group.size - 1:
        next(images.rglob("*.png")).unlink()
    there = override(plan, "test", {"data.root": str(images)})
    try:
        run_training(there, RunFolder(root / f"unequal{rank}"), lambda epoch: None, runtime)
    except DataError as error:
        return str(error).removeprefix(str(images))
    return "nothing"


class InfinitePixels:
    """Batches of which the second one's last image, of the last worker, is not finite."""

    batches_per_epoch, images_per_batch = 3, 12

    def __init__(self, group: ProcessGroup) -> None:
        self._own = group.local_slice(self.images_per_batch)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.arange(self.images_per_batch) % 4
        for batch in range(self.batches_per_epoch):
            images = torch.ones(self.images_per_batch, 3, 32, 32)
            images[-1] = torch.inf if batch == 1 else 1.0
            yield images[self._own], labels[self._own]


def diverge(plan: Experiment, runtime: Runtime) -> str:
    """Take steps with outputs that are not finite on one worker only; write what is raised."""
    learner = build_learner(plan, 4, runtime)
    optimizer = build_optimizer(plan.optimizer, learner.groups())
    try:
        list(
            fit(TrainState(learner, optimizer), InfinitePixels(runtime.group), plan, runtime.group)
        )
    except DmlrayError as error:
        return str(error)
    return "nothing"


def gather(rank: int, size: int, root: Path) -> None:
    """Gather JSON values of different lengths and types; write the result."""
    meeting = f"file://{root / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    given = {"failure": "Größe: \x1b"} if rank else [{"loss": 0.1 + 0.2, "recall": float("nan")}]
    (root / f"{rank}.txt").write_text(repr(ProcessGroup(rank, size).gather_json(given)))
    dist.barrier()
    dist.destroy_process_group()
