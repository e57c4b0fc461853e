"""What a member costs the driver: many members whose training does nothing, on GPUs of paper.

    python benchmarks/scale.py [--members 100 300 1000] [--gpus 64]

Prints the driver's CPU time of each ensemble, the line through them, and the growth of its memory.
Each slot is a process: 64 of them want about 6 GB and a minute to start on two cores.
"""

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray

from dmlray.cluster import session
from dmlray.cluster.ensemble import Pool
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.files import read_experiment
from dmlray.plans.folder import RunFolder
from dmlray.reporting.display import Display

MOST_MS_PER_MEMBER, MOST_MB = 20.0, 100.0


class Nothing:
    """A slot that trains nothing; it needs no torch, so that many fit on one machine."""

    def train(self, plan: Any, folder: Any) -> None:
        pass


@dataclass(frozen=True)
class Plans:
    """Makes each member's plan, as ever, but sends only its budget: see `Nothing`."""

    ensemble: Ensemble

    @property
    def size(self) -> int:
        return self.ensemble.size

    def member(self, index: int) -> Any:
        budget = self.ensemble.member(index).budget
        return SimpleNamespace(budget=SimpleNamespace(epochs=budget.epochs))


class Watched(Display):
    """Remembers that something was shown while it ran."""

    shown = 0

    def update(self, done: int, note: str = "") -> None:
        self.shown += 1
        super().update(done, note)


def main() -> None:
    arguments = read_arguments()
    ray.init(
        num_cpus=arguments.gpus,
        num_gpus=arguments.gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 << 20,
    )
    run(arguments.gpus, session.living())  # starts what starts once
    before, costs = memory(), []
    for members in arguments.members:
        costs.append(run(members, session.living()))
        print(f"{members:5d} members: {costs[-1]:6.2f} driver cpu-s, +{memory() - before:.0f} MB")
    each, fixed = np.polyfit(arguments.members, costs, 1) if len(costs) > 1 else (0.0, 0.0)
    worst, growth = 1000 * costs[-1] / arguments.members[-1], memory() - before
    print(f"fit: {fixed:.2f} s + {1000 * each:.1f} ms a member")
    print(f"driver: {worst:.1f} ms a member (goal {MOST_MS_PER_MEMBER:g}), +{growth:.0f} MB")
    ray.shutdown()
    if worst > MOST_MS_PER_MEMBER or growth > MOST_MB:
        sys.exit("above the goal")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--members", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--gpus", type=int, default=64)
    return parser.parse_args()


def run(members: int, cluster: session.Cluster) -> float:
    """CPU seconds of the driver for one ensemble, with its display."""
    experiment = read_experiment(Path("experiments/dreml_demo.yaml")).experiment
    with tempfile.TemporaryDirectory() as folder, Watched() as display:
        start = time.process_time()
        pool = Pool(
            Plans(Ensemble(experiment, members, "meta_classes")),  # type: ignore[arg-type]
            RunFolder(Path(folder)),
            cluster,
            members_per_gpu=1,
            slot=Nothing,
        )
        pool.run(display)
        spent = time.process_time() - start
    if not display.shown:
        sys.exit("nothing was shown")
    return spent


def memory() -> float:
    """Peak of this process's resident memory, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
