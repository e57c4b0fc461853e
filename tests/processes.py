"""Several processes at once, forked from one that has imported what they need."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing.spawn import start_processes

multiprocessing.set_forkserver_preload(["tests.learn.workers", "tests.cluster.group_workers"])


def run_processes(count: int, work: Callable[..., None], *words: Any) -> None:
    """Call `work(rank, *words)` in so many processes; raise the first error of one."""
    start_processes(work, words, nprocs=count, start_method="forkserver")
