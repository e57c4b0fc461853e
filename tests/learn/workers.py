"""Processes that share each batch: the side of `test_team.py` that runs in them."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import torch
import torch.distributed as dist
from torch import Tensor

from dmlray.errors import DataError, DmlrayError
from dmlray.learn import gradient_average
from dmlray.learn.loop import Epoch, fit
from dmlray.learn.optimizer import build
from dmlray.learn.process_group import Team
from dmlray.learn.run import job
from dmlray.learn.trainer import Place, build_learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override
from dmlray.plans.run_folder import RunFolder

RESUMED = "validation"


def work(rank: int, size: int, plans: dict[str, Experiment], root: Path) -> None:
    """Run every plan as one of `size` workers; what all see of the disk is in the first's root."""
    torch.set_num_threads(1)
    gradient_average.BUCKET = 1 << 12  # several of them, on their way at once
    meeting = f"file://{root / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    place = Place(torch.device("cpu"), team=Team(rank, size))
    seen = root / f"elsewhere{rank}" if rank else root
    for name, plan in plans.items():
        job(plan, RunFolder(seen / name), lambda epoch: None, place)
    (root / f"resumed{rank}.txt").write_text(resume(plans[RESUMED], seen / RESUMED, place))
    (root / f"damaged{rank}.txt").write_text(damage(plans[RESUMED], seen, place))
    (root / f"images{rank}.txt").write_text(other_images(plans[RESUMED], root, place))
    (root / f"diverged{rank}.txt").write_text(diverge(plans[RESUMED], place))
    assert not rank or not seen.exists()
    dist.barrier()
    dist.destroy_process_group()


def resume(plan: Experiment, path: Path, place: Place) -> str:
    """Score a finished run again from its checkpoints: which epochs are reported, and if equal."""
    folder, epochs = RunFolder(path), list[int]()

    def report(epoch: Epoch) -> None:
        epochs.append(epoch.number)

    before = job(plan, folder, report, place)
    if place.team.leads:
        folder.scores.unlink()
    after = job(plan, folder, report, place)
    return f"epochs {epochs}, {before == after}"


def damage(plan: Experiment, root: Path, place: Place) -> str:
    """Meet a damaged checkpoint in a copy of the run; what is raised."""
    folder = RunFolder(root / "damaged")
    if place.team.leads:
        copytree(root / RESUMED, folder.path)
        folder.scores.unlink()
        folder.last_checkpoint.write_bytes(b"damaged")
    try:
        job(plan, folder, lambda epoch: None, place)
    except DataError as error:
        return f"{type(error).__name__} {error}"
    return "nothing"


def other_images(plan: Experiment, root: Path, place: Place) -> str:
    """Start a run of which the last worker does not see one image yet; what is raised."""
    rank = place.team.rank
    images = copytree(plan.data.root, root / f"images{rank}")
    if rank == place.team.size - 1:
        next(images.rglob("*.png")).unlink()
    there = override(plan, "test", {"data.root": str(images)})
    try:
        job(there, RunFolder(root / f"unequal{rank}"), lambda epoch: None, place)
    except DataError as error:
        return str(error).removeprefix(str(images))
    return "nothing"


class InfinitePixels:
    """Batches of which the second one's last image, of the last worker, is not finite."""

    batches_per_epoch, images_per_batch = 3, 12

    def __init__(self, team: Team) -> None:
        self._own = team.own(self.images_per_batch)

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        labels = torch.arange(self.images_per_batch) % 4
        for batch in range(self.batches_per_epoch):
            images = torch.ones(self.images_per_batch, 3, 32, 32)
            images[-1] = torch.inf if batch == 1 else 1.0
            yield images[self._own], labels[self._own]


def diverge(plan: Experiment, place: Place) -> str:
    """Take steps whose outputs are not finite on one worker alone; what is raised."""
    learner = build_learner(plan, 4, place)
    optimizer = build(plan.optimizer, learner.groups())
    try:
        list(fit(learner, InfinitePixels(place.team), optimizer, plan, team=place.team))
    except DmlrayError as error:
        return str(error)
    return "nothing"


def gather(rank: int, size: int, root: Path) -> None:
    """Give what differs in length and kind; write what came of it."""
    meeting = f"file://{root / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    given = {"failure": "Größe: \x1b"} if rank else [{"loss": 0.1 + 0.2, "recall": float("nan")}]
    (root / f"{rank}.txt").write_text(repr(Team(rank, size).gather_json(given)))
    dist.barrier()
    dist.destroy_process_group()
