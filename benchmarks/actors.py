"""N slots of one thread against one slot of N threads: trainings per minute on this machine.

    python benchmarks/actors.py [--threads 2] [--trainings 2]

Both sides train the same experiments in processes of their own, after one that is not counted.
Seconds are by the clock, so the ratio needs an idle machine. Ends with status 1 if a training
scores other than its twin on the other side, never for being slow.
"""

import argparse
import multiprocessing as mp
import os
import sys
import tempfile
import time
from pathlib import Path

import torch
from _race import conclude

from dmlray.learn.preflight import preflight
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder

NEAR = 0.05  # in R@1: threads add in another order, and training makes more of it


def main() -> int:
    """Print both rates and their ratio; 1 if the scores differ."""
    arguments = read_arguments()
    plan = read_experiment(Path(arguments.experiment), arguments.settings).experiment
    preflight(plan)
    n, count = arguments.threads, arguments.trainings
    many, scores = rate(plan, processes=n, threads=1, count=count)
    print(f"{n} slots x 1 thread:  {many:6.2f} trainings a minute")
    one, twins = rate(plan, processes=1, threads=n, count=count)
    print(f"1 slot x {n} threads:  {one:6.2f} trainings a minute")
    pairs = zip(scores, twins, strict=True)
    wrong = [f"R@1 {a:.3f} and {b:.3f} of one seed" for a, b in pairs if not abs(a - b) < NEAR]
    return conclude({"actors_slots_over_threads": many / one}, wrong)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--trainings", type=int, default=2)
    parser.add_argument("--experiment", default="experiments/dreml_demo.yaml")
    parser.add_argument("settings", nargs="*", default=["budget.epochs=1"], metavar="KEY=VALUE")
    return parser.parse_args()


def rate(plan: Experiment, processes: int, threads: int, count: int) -> tuple[float, list[float]]:
    """Trainings per minute, by the clock, and the R@1 of each."""
    with (
        tempfile.TemporaryDirectory() as folder,
        mp.get_context("spawn").Pool(processes, torch.set_num_threads, (threads,)) as pool,
    ):
        works = [(override(plan, "", {"seed": i}), Path(folder) / str(i)) for i in range(count)]
        warm = [(plan, Path(folder) / f"warm{i}") for i in range(processes)]
        pool.starmap(train, warm, chunksize=1)
        start = time.monotonic()
        scores = pool.starmap(train, works, chunksize=1)
        return 60 * count / (time.monotonic() - start), scores


def train(plan: Experiment, folder: Path) -> float:
    """R@1 of a training that shows nothing."""
    runtime = Runtime(torch.device("cpu"))
    scores = run_training(
        plan, RunFolder(folder), lambda epoch: None, runtime, with_zero_shot=False
    )
    return scores.metrics["recall_at_1"]


if __name__ == "__main__":
    sys.exit(main())
