"""N slots of one thread against one slot of N threads: trainings per minute on this machine.

    python benchmarks/actors.py [--threads 2] [--trainings 4]

Both sides train the same experiment in processes of their own, after one that is not counted.
"""

import argparse
import multiprocessing as mp
import os
import tempfile
import time
from pathlib import Path

import torch

from dmlray.learn.job import job
from dmlray.learn.preflight import preflight
from dmlray.learn.training import Place
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import override, read_experiment
from dmlray.plans.folder import RunFolder


def main() -> None:
    arguments = read_arguments()
    plan = read_experiment(Path(arguments.experiment), arguments.settings).experiment
    preflight(plan)
    n, count = arguments.threads, arguments.trainings
    many = rate(plan, processes=n, threads=1, count=count)
    print(f"{n} slots x 1 thread:  {many:6.2f} trainings a minute")
    one = rate(plan, processes=1, threads=n, count=count)
    print(f"1 slot x {n} threads:  {one:6.2f} trainings a minute")
    print(f"RATIO {many / one:.2f}")


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trainings", type=int, default=4)
    parser.add_argument("--experiment", default="experiments/dreml_demo.yaml")
    parser.add_argument("settings", nargs="*", default=["budget.epochs=1"], metavar="KEY=VALUE")
    return parser.parse_args()


def rate(plan: Experiment, processes: int, threads: int, count: int) -> float:
    """Trainings per minute, wall clock."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mp.get_context("spawn").Pool(processes, torch.set_num_threads, (threads,)) as pool,
    ):
        works = [(override(plan, "", {"seed": i}), Path(folder) / str(i)) for i in range(count)]
        warm = [(plan, Path(folder) / f"warm{i}") for i in range(processes)]
        pool.starmap(train, warm, chunksize=1)
        start = time.monotonic()
        pool.starmap(train, works, chunksize=1)
        return 60 * count / (time.monotonic() - start)


def train(plan: Experiment, folder: Path) -> None:
    place = Place(torch.device("cpu"))
    job(plan, RunFolder(folder), lambda epoch: None, place, with_zero_shot=False)


if __name__ == "__main__":
    main()
