"""Processes that share each batch: the side of `test_team.py` that runs in them."""

from pathlib import Path

import torch
import torch.distributed as dist

from dmlray.learn.job import job
from dmlray.learn.team import Team
from dmlray.learn.training import Place
from dmlray.plans.experiment import Experiment
from dmlray.plans.folder import RunFolder


def work(rank: int, size: int, plans: dict[str, Experiment], root: Path) -> None:
    """Run every plan as one of `size` workers; the run folders are below `root`."""
    torch.set_num_threads(1)
    meeting = f"file://{root / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    for name, plan in plans.items():
        place = Place(torch.device("cpu"), team=Team(rank, size))
        job(plan, RunFolder(root / name), lambda epoch: None, place)
    dist.barrier()
    dist.destroy_process_group()


def gather(rank: int, size: int, root: Path) -> None:
    """Give what differs in length and kind; write what came of it."""
    meeting = f"file://{root / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=size)
    given = {"failure": "Größe: \x1b"} if rank else [{"loss": 0.1 + 0.2, "recall": float("nan")}]
    (root / f"{rank}.txt").write_text(repr(Team(rank, size).gather_json(given)))
    dist.barrier()
    dist.destroy_process_group()
