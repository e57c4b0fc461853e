"""Measure time and memory of a training in a few steps and one evaluation; writes nothing."""

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.optim.optimizer import Optimizer

from dmlray import methods
from dmlray.data.batches.loader import AHEAD
from dmlray.data.folds import Subset, train_subset
from dmlray.learn.class_split import fold_split, load_dataset
from dmlray.learn.loop import Loaded, fit
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.run import class_split
from dmlray.learn.runtime import Runtime
from dmlray.learn.state import TrainState
from dmlray.learn.teacher import TrainLoader, write_vectors
from dmlray.learn.trainer import Training
from dmlray.methods import Learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder

_STEPS = 6
_TEACHER_WIDTH = 512  # dimensions, the only thing of a teacher that costs time in a step
_IMAGES = 256  # in the timed evaluation: one batch


@dataclass(frozen=True)
class Probe:
    """Cost of one training on this machine. Times in seconds, memory in bytes.

    `feature` is the time of an image in a frozen trunk, which computes features once per process;
    0 where the trunk trains. `held` is the memory that a training keeps between steps, which each
    further training in the same process adds.
    """

    start: float  # from the plan to a learner on its device
    step: float
    steps: int  # per epoch
    image: float  # to embed and score one image
    train_images: int
    scored_images: int  # after each epoch
    memory: int  # the process at its peak, shared pages of the image cache included
    gpu_memory: int  # at its peak; 0 without a GPU
    held: int
    feature: float = 0.0


def probe(plan: Experiment, runtime: Runtime, folds: bool) -> Probe:
    """Measure the training of `plan` (`folds`: of its first fold) alone on `runtime`.

    Raises:
        DmlrayError: As a training raises in its first steps.
    """
    started = _now(runtime)
    dataset = load_dataset(plan)
    what = fold_split(plan, dataset, 0) if folds else class_split(plan, dataset)
    with TemporaryDirectory() as temporary:
        folder = RunFolder(Path(temporary))
        if methods.has_teacher(plan.method.config):  # time does not depend on what it computes
            images = len(train_subset(dataset))
            write_vectors(folder.teacher, torch.randn(images, _TEACHER_WIDTH), dataset, "")
        training = Training(plan, what, folder, runtime)
        optimizer = build_optimizer(plan.optimizer, training.learner.groups())
        begun = _now(runtime)
        loader = training.train_batches()
        looked = _now(runtime)
    few = _FirstBatches(loader, runtime)
    state = TrainState(training.learner, optimizer, scaler=training.precision.scaler())
    next(fit(state, few, plan))
    return Probe(
        start=begun - started,
        step=few.seconds(),
        steps=loader.batches_per_epoch,
        image=_seconds_per_image(training, what.validation or what.train),
        train_images=len(what.train),
        scored_images=len(what.validation or ()),
        memory=_peak_memory(),
        gpu_memory=torch.cuda.max_memory_reserved() if runtime.device.type == "cuda" else 0,
        held=_held(training.learner, optimizer),
        feature=(looked - begun) / len(what.train) if plan.backbone.frozen else 0.0,
    )


class _FirstBatches:
    """The first batches of a loader, and the time at which each was requested."""

    def __init__(self, loader: TrainLoader, runtime: Runtime) -> None:
        self._loader, self._runtime = loader, runtime
        # Prefetched batches are free at first, so measure after they are used up.
        wanted = max(_STEPS, 2 * AHEAD * runtime.threads)
        self.batches_per_epoch = min(wanted, loader.batches_per_epoch)
        self.images_per_batch = loader.images_per_batch
        self._times: list[float] = []

    def epoch(self, number: int) -> Iterator[Loaded]:
        batches: Iterator[Loaded] = self._loader.epoch(number)
        for batch in islice(batches, self.batches_per_epoch):
            self._times.append(_now(self._runtime))
            yield batch
        self._times.append(_now(self._runtime))

    def seconds(self) -> float:
        """Return the mean seconds of a step over the second half, after warm-up."""
        half = (len(self._times) - 1) // 2
        return (self._times[-1] - self._times[half]) / (len(self._times) - 1 - half)


def _seconds_per_image(training: Training, subset: Subset) -> float:
    part = Subset(subset.rows[:_IMAGES], subset.labels[:_IMAGES], subset.classes)
    training.score(part)  # warm-up
    started = _now(training.runtime)
    training.score(part)
    return (_now(training.runtime) - started) / len(part)


def _now(runtime: Runtime) -> float:
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    return time.perf_counter()


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _held(learner: Learner, optimizer: Optimizer) -> int:
    """Return the bytes of weights, gradients and optimizer state."""
    tensors = [*learner.parameters(), *learner.buffers()]
    tensors += [weight.grad for weight in learner.parameters() if weight.grad is not None]
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in tensors)
