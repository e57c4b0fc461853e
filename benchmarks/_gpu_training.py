"""Whole trainings on a device: precisions, checkpoints, evaluation, memory, two members at once."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _gpu_setup import FULL, SMALL, Size, loader, photos, plan, threads
from _race import Rate, timed

from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, train_subset
from dmlray.learn.class_split import ClassSplit
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.runtime import Runtime
from dmlray.learn.step import step
from dmlray.learn.trainer import Training, build_learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder

GOAL = 2_800  # images/s of ResNet-50's step in bfloat16 on a GPU of H100's class
WAYS = {
    "float32": ("budget.precision=float32",),
    "tf32": ("budget.precision=tf32",),
    "bfloat16": ("budget.precision=bfloat16",),
    "bfloat16, compiled": ("budget.precision=bfloat16", "budget.compile=true"),
}
MEMBER = """
import sys
sys.path.insert(0, {folder!r})
from _gpu_training import member
member({device!r}, {small!r}, {number!r})
"""


def precisions(dataset: Dataset, device: torch.device, size: Size) -> dict[str, float]:
    """Rate of the first network's step in each precision, and compiled."""
    name, rates = size.networks[0], dict[str, float]()
    for way, words in WAYS.items():
        if device.type == "cpu" and "budget.compile=true" in words:
            continue  # what its compiler makes of a CPU's code is not asked here
        rate = _step_rate(plan(name, size, *words), dataset, device, size)
        print(f"{name}, step in {way}, images/s: {rate}", flush=True)
        rates[way] = rate.median
    ratios = {f"bfloat16_of_{GOAL}": rates["bfloat16"] / GOAL}
    ratios["bfloat16_over_tf32"] = rates["bfloat16"] / rates["tf32"]
    if compiled := rates.get("bfloat16, compiled"):
        ratios["compiled_over_eager"] = compiled / rates["bfloat16"]
    return {f"gpu_{name}_{what}": value for what, value in ratios.items()}


def _step_rate(of: Experiment, dataset: Dataset, device: torch.device, size: Size) -> Rate:
    torch.manual_seed(0)
    learner = build_learner(of, dataset.train_classes, Runtime(device)).train()
    images, labels = next(loader(of, learner, dataset, device).epoch(0))
    optimizer = build_optimizer(of.optimizer, learner.groups())

    def steps() -> None:
        for _ in range(size.steps):
            step(learner, images, labels, optimizer, of)

    return Rate(timed(steps, device, size.rounds), size.steps * len(images))


def trainings(dataset: Dataset, folder: Path, device: torch.device, size: Size) -> dict[str, float]:
    """Rate of epochs with checkpoints, and with evaluation, over the bare step's; memory."""
    name = size.networks[0]
    words = f"budget.epochs={size.epochs}"
    bare = _step_rate(plan(name, size), dataset, device, size).median
    ratios = {}
    for what, validation in (("checkpoints", 0), ("checkpoints and evaluation", size.validation)):
        of = plan(name, size, words)
        seconds, memory = _epochs(of, _task(dataset, validation), folder / what, device)
        images = len(dataset) // size.batch * size.batch
        rate = images / np.median(seconds[1:] or seconds)
        print(f"{name}, epochs with {what}: {rate:.0f} images/s, {rate / bare:.1%} of the step's")
        ratios[f"gpu_{name}_{what.replace(' ', '_')}_of_step"] = float(rate / bare)
    growth = (memory[-1] - memory[min(1, len(memory) - 1)]) / 2**20
    print(f"memory reserved: {memory[-1] / 2**20:.0f} MiB, {growth:.0f} more than after 2 epochs")
    return ratios | {f"gpu_memory_growth_{size.epochs}_epochs_MiB": growth}


def _task(dataset: Dataset, validation: int) -> ClassSplit:
    """Train on all images, and validate on the first ones of them: only the time counts."""
    train = train_subset(dataset)
    some = Subset(train.rows[:validation], train.labels[:validation], train.classes)
    return ClassSplit(dataset, train, some if validation else None)


def _epochs(
    of: Experiment, task: ClassSplit, path: Path, device: torch.device
) -> tuple[list[float], list[int]]:
    """Seconds of each epoch, and memory reserved after it."""
    training = Training(of, task, RunFolder(path), Runtime(device, threads()))
    seconds, memory, last = list[float](), list[int](), time.perf_counter()
    for _ in training.epochs():
        seconds.append(time.perf_counter() - last)
        memory.append(torch.cuda.memory_reserved() if device.type == "cuda" else 0)
        last = time.perf_counter()
    return seconds, memory


def two_members(device: torch.device, small: bool) -> dict[str, float]:
    """Trainings a second of two processes on one device over those of one, all else equal."""

    def run(count: int) -> float:
        code = [
            MEMBER.format(
                folder=str(Path(__file__).parent), device=device.type, small=small, number=n
            )
            for n in range(count)
        ]
        processes = [
            subprocess.Popen([sys.executable, "-c", one], stdout=subprocess.PIPE, text=True)
            for one in code
        ]
        seconds = [float(process.communicate()[0]) for process in processes]
        if any(process.returncode for process in processes):
            raise RuntimeError("a member failed")
        return count / max(seconds)

    alone, both = run(1), run(2)
    print(f"two members on one device: {both / alone:.2f} of the trainings a second of one alone")
    return {"gpu_two_members_over_one": both / alone}


def member(kind: str, small: bool, number: int) -> None:
    """Print the seconds of some epochs of the last network, after one to warm up."""
    from tempfile import TemporaryDirectory

    size, device = SMALL if small else FULL, torch.device(kind)
    with TemporaryDirectory() as folder:
        dataset = photos(Path(folder), size.images)
        of = plan(size.networks[-1], size, "budget.epochs=3", f"seed={number}")
        seconds, _ = _epochs(of, _task(dataset, 0), Path(folder, "run"), device)
    print(sum(seconds[1:]))


def guarded(part: Callable[[], dict[str, float]], wrong: list[str]) -> dict[str, float]:
    """Run a part of the benchmark; what it raises is noted, and the others go on."""
    try:
        return part()
    except Exception as error:
        wrong.append(f"{type(error).__name__}: {error}".split("\n")[0])
        return {}
