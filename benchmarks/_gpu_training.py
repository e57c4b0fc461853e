"""Whole trainings on a device: precisions, checkpoints, evaluation, memory, two members at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import SimpleQueue
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from unittest import mock

import torch
from _gpu_parts import FORK
from _gpu_setup import Bench, loader, plan, threads
from _race import Rate, timed

from dmlray.data.folds import Subset, train_subset
from dmlray.learn import checkpoint, trainer
from dmlray.learn.checkpoint_writer import CheckpointWriter
from dmlray.learn.class_split import ClassSplit
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.runtime import Runtime
from dmlray.learn.step import step
from dmlray.learn.trainer import Training, build_learner
from dmlray.methods import Batch
from dmlray.plans.run_folder import RunFolder

GOAL = 2_800  # images/s of ResNet-50's step in bfloat16 on a GPU of H100's class


class Epochs(NamedTuple):
    """Of each epoch: seconds, those waited for checkpoints, bytes reserved after it."""

    seconds: list[float]
    waited: list[float]
    memory: list[int]

    def rate(self, bench: Bench) -> float:
        """Images per second of the epochs after the first."""
        images = len(bench.dataset) // bench.size.batch * bench.size.batch
        return images / median(self.seconds[1:] or self.seconds)


def precisions(bench: Bench) -> dict[str, float]:
    """Rate of the first network's step in each precision."""
    name = bench.size.networks[0]
    rates = {way: _step_rate(bench, way) for way in ("bfloat16", "tf32", "float32")}
    return {
        f"gpu_{name}_bfloat16_of_{GOAL}": rates["bfloat16"] / GOAL,
        f"gpu_{name}_bfloat16_over_tf32": rates["bfloat16"] / rates["tf32"],
        f"gpu_{name}_tf32_over_float32": rates["tf32"] / rates["float32"],
    }


def compiled(bench: Bench) -> dict[str, float]:
    """Rate of the first network's step in bfloat16, compiled over eager."""
    eager, fast = (_step_rate(bench, "bfloat16", on) for on in ("false", "true"))
    return {f"gpu_{bench.size.networks[0]}_compiled_over_eager": fast / eager}


def checkpoints(bench: Bench) -> dict[str, float]:
    """Epochs that write checkpoints against the bare step, on this disk and on a slow one."""
    name, bare = bench.size.networks[0], _step_rate(bench, "bfloat16")
    here = _said(bench, "checkpoints", bare, _epochs(bench))
    busy = median(here.seconds[1:] or here.seconds) / 2
    slow = _said(bench, "checkpoints on a slow disk", bare, _epochs(bench, delay=busy))
    share = sum(slow.waited) / sum(slow.seconds)
    return {
        f"gpu_{name}_checkpoints_of_step": here.rate(bench) / bare,
        f"gpu_{name}_wait_for_slow_checkpoints": share,
    }


def evaluation(bench: Bench) -> dict[str, float]:
    """Epochs that write checkpoints and validate, against the bare step."""
    name, bare = bench.size.networks[0], _step_rate(bench, "bfloat16")
    found = _said(bench, "checkpoints and evaluation", bare, _epochs(bench, bench.size.validation))
    return {f"gpu_{name}_checkpoints_and_evaluation_of_step": found.rate(bench) / bare}


def memory(bench: Bench) -> dict[str, float]:
    """How much more memory is reserved after many epochs, of a quarter of the images, than two."""
    size = bench.size._replace(epochs=bench.size.watched, images=bench.size.images // 4)
    found = _epochs(bench._replace(size=size), size.validation).memory
    growth = (found[-1] - found[1]) / 2**20
    print(f"memory reserved: {found[-1] / 2**20:.0f} MiB, {growth:.0f} more than after 2 epochs")
    return {f"gpu_memory_growth_{len(found)}_epochs_MiB": growth}


def two_members(bench: Bench) -> dict[str, float]:
    """Trainings a second of two processes on one device over those of one, all else equal."""
    alone, both = (_members(bench, count) for count in (1, 2))
    print(f"two members on one device: {both / alone:.2f} of the trainings a second of one alone")
    return {"gpu_two_members_over_one": both / alone}


def _members(bench: Bench, count: int) -> float:
    """Trainings a second of so many processes at once."""
    found = FORK.SimpleQueue()
    processes = [
        FORK.Process(target=_member, args=(bench, f"member{count}{number}", found))
        for number in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if any(process.exitcode for process in processes):
        raise RuntimeError("a member failed")
    slowest: float = max(found.get() for _ in processes)
    return count / slowest


def _member(bench: Bench, name: str, found: "SimpleQueue[float]") -> None:
    """Put the seconds of some epochs of the last network, after one to warm up."""
    folder = bench.folder / name
    folder.mkdir()
    size = bench.size._replace(epochs=3)
    bench = bench._replace(folder=folder, size=size)
    found.put(sum(_epochs(bench, name=size.networks[-1]).seconds[1:]))


def _step_rate(bench: Bench, precision: str, on: str = "false") -> float:
    """Images per second of the first network's step, `on` whether compiled."""
    dataset, _, device, size = bench
    name = size.networks[0]
    of = plan(name, size, f"budget.precision={precision}", f"budget.compile={on}")
    torch.manual_seed(0)
    learner = build_learner(of, dataset.train_classes, Runtime(device)).train()
    images, labels = next(loader(of, learner, dataset, device).epoch(0))
    optimizer = build_optimizer(of.optimizer, learner.groups())

    def steps() -> None:
        for _ in range(size.steps):
            step(learner, Batch(images, labels), optimizer, of)

    rate = Rate(timed(steps, device, size.rounds), size.steps * len(images))
    way = f"{precision}, compiled" if on == "true" else precision
    print(f"{name}, step in {way}, images/s: {rate}", flush=True)
    return rate.median


def _epochs(bench: Bench, validation: int = 0, delay: float = 0.0, name: str = "") -> Epochs:
    """Train the first network, or another, for `size.epochs` epochs that write checkpoints.

    Args:
        bench: What is trained, on which device.
        validation: Images that each epoch is scored on.
        delay: Seconds that the disk is busy with each checkpoint beyond what it takes.
        name: Backbone; empty means the first of the size's.
    """
    name = name or bench.size.networks[0]
    of = plan(name, bench.size, f"budget.epochs={bench.size.epochs}")
    runtime, found = Runtime(bench.device, threads()), Epochs([], [], [])
    with TemporaryDirectory(dir=bench.folder) as run, _watched(delay) as writer:
        epochs = Training(of, _split(bench, validation), RunFolder(Path(run)), runtime).epochs()
        last, waited = time.perf_counter(), 0.0
        for _ in epochs:
            now = time.perf_counter()
            found.seconds.append(now - last)
            found.waited.append(writer.waited - waited)
            on_gpu = bench.device.type == "cuda"
            found.memory.append(torch.cuda.memory_reserved() if on_gpu else 0)
            last, waited = time.perf_counter(), writer.waited
    return found


def _split(bench: Bench, validation: int) -> ClassSplit:
    """Train on `size.images`, and validate on the first of them: only the time counts."""
    all_images = train_subset(bench.dataset)

    def first(count: int) -> Subset:
        return Subset(all_images.rows[:count], all_images.labels[:count], all_images.classes)

    return ClassSplit(
        bench.dataset, first(bench.size.images), first(validation) if validation else None
    )


class _Watched(CheckpointWriter):
    """Notes how long the loop waits for it."""

    waited = 0.0  # seconds, of all of them

    def save(self, last: Path, best: Path | None, content: dict[str, Any]) -> None:
        self.flush()  # noted there
        began = time.perf_counter()
        super().save(last, best, content)
        _Watched.waited += time.perf_counter() - began

    def flush(self) -> None:
        began = time.perf_counter()
        super().flush()
        _Watched.waited += time.perf_counter() - began


@contextmanager
def _watched(delay: float) -> Iterator[type[_Watched]]:
    """Watch the writers of checkpoints, on a disk that is busy for `delay` seconds more."""
    write, _Watched.waited = checkpoint.write, 0.0

    def slowly(path: Path, content: dict[str, Any]) -> None:
        write(path, content)
        time.sleep(delay)

    with (
        mock.patch.object(trainer, "CheckpointWriter", _Watched),
        mock.patch.object(checkpoint, "write", slowly),
    ):
        yield _Watched


def _said(bench: Bench, what: str, bare: float, found: Epochs) -> Epochs:
    rate, waited = found.rate(bench), sum(found.waited) / sum(found.seconds)
    print(
        f"{bench.size.networks[0]}, epochs with {what}: {rate:.0f} images/s, {rate / bare:.1%} of "
        f"the step's; {waited:.2%} of the time is waiting for checkpoints",
        flush=True,
    )
    return found
