"""What a member costs the driver: many members whose training does nothing, on GPUs of paper.

    python benchmarks/scale.py [--members 100 300 1000] [--gpus 64]

Prints the driver's CPU time of each ensemble and the growth of its memory, the lines through both,
and what they say of 10,000 members. Never fails for being slow.
Each slot is a process: 64 of them want about 6 GB, and on two busy cores half a minute to start.
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
from _race import conclude

from dmlray.cluster.ensemble.member_queue import MemberQueue
from dmlray.cluster.resources import Cluster, current_cluster
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display

FAR = 10_000  # members


class Nothing:
    """An actor that trains nothing for a second; without torch, so that many fit on one machine."""

    def train(self, plan: Any, folder: Any, with_zero_shot: bool) -> None:
        time.sleep(1)


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

    def setting(self, index: int) -> int:
        return self.ensemble.setting(index)


class Watched(Display):
    """Records the largest number of members shown as running at once."""

    most = 0

    def update(self, done: int, note: str = "") -> None:
        self.most = max(self.most, int(note.split()[-2]))  # "..., 7 running"
        super().update(done, note)


def main() -> int:
    arguments = read_arguments()
    ray.init(
        num_cpus=arguments.gpus,
        num_gpus=arguments.gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=200 << 20,
    )
    run(4, current_cluster())  # starts what starts once
    before, costs, growths = memory(), [], []
    for members in arguments.members:
        start = time.monotonic()
        spent, at_once = run(members, current_cluster())
        costs.append(spent)
        growths.append(memory() - before)
        print(
            f"{members:6d} members: {spent:7.2f} driver cpu-s, +{growths[-1]:.0f} MB; "
            f"{time.monotonic() - start:.0f} s, {at_once} at work at once",
            flush=True,
        )
    ray.shutdown()
    if len(costs) > 1:
        seconds, megabytes = (line(arguments.members, values) for values in (costs, growths))
        print(f"{FAR:6d} members: {seconds:7.2f} driver cpu-s, +{megabytes:.0f} MB, by the lines")
    ratios = {
        "scale_ms_per_member": 1000 * costs[-1] / arguments.members[-1],
        "scale_driver_mb": growths[-1],
    }
    return conclude(ratios, [])


def line(members: list[int], values: list[float]) -> float:
    """What the straight line through values of so many members says of `FAR`."""
    return float(np.polyval(np.polyfit(members, values, 1), FAR))


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--members", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--gpus", type=int, default=64)
    return parser.parse_args()


def run(members: int, cluster: Cluster) -> tuple[float, int]:
    """CPU seconds of the driver for one ensemble with its display; members at work at once."""
    experiment = read_experiment(Path("experiments/dreml_demo.yaml")).experiment
    display = Watched()
    with tempfile.TemporaryDirectory() as folder, display:
        start = time.process_time()
        pool = MemberQueue(
            Plans(Ensemble(experiment, members, "meta_classes")),  # type: ignore[arg-type]
            RunFolder(Path(folder)),
            cluster,
            members_per_gpu=1,
            actor=Nothing,
        )
        pool.run(display)
        spent = time.process_time() - start
    return spent, display.most


def memory() -> float:
    """Peak of this process's resident memory, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
