"""The epoch loop: a generator that yields after each epoch."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dmlray.learn.divergence import StepNorms, check_epoch, check_weights
from dmlray.learn.gradient_average import GradientAverage
from dmlray.learn.metrics_log import SPEED
from dmlray.learn.optimizer import lr_factor, set_lr
from dmlray.learn.process_group import SINGLE_PROCESS, ProcessGroup, SharedBatch
from dmlray.learn.state import TrainState
from dmlray.learn.step import Update, step
from dmlray.methods import Batch, Learner
from dmlray.plans.experiment import Experiment


@dataclass(frozen=True)
class Epoch:
    """Result of an epoch: `number` counts from 1; metrics are means over steps, or scores."""

    number: int
    metrics: dict[str, float] = field(default_factory=dict)


Report = Callable[[Epoch], None]  # called with each epoch, once it is in the metrics log


Loaded = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]  # images, labels and targets


class Batches(Protocol):
    """Source of training batches: a `BatchLoader`, or a few batches of one."""

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches, equal in all epochs."""

    @property
    def images_per_batch(self) -> int:
        """The number of images of a batch over all devices."""

    def epoch(self, number: int) -> Iterator[Loaded]:
        """Yield the batches of an epoch, a function of the seed and its number."""


def fit(
    state: TrainState[Learner],
    loader: Batches,
    plan: Experiment,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[Epoch]:
    """Minimise the sum of the loss terms for the epochs that `state` lacks; yield after each.

    Each epoch has its own seed, so that a resumed run equals an uninterrupted one.

    Raises:
        RunError: If a loss, a gradient or a weight is not finite; names the cause.
    """
    learner, optimizer = state.learner, state.optimizer
    assert optimizer is not None
    check_weights(learner, plan, state.progress.epoch + 1)
    epochs, per_epoch = plan.budget.epochs, loader.batches_per_epoch
    images_per_epoch, factor = per_epoch * loader.images_per_batch, 1.0
    shared = SharedBatch(group, loader.images_per_batch)
    with GradientAverage(learner.parameters(), group) as average:
        for epoch in range(state.progress.epoch, epochs):
            started = time.perf_counter()
            torch.manual_seed(plan.seed * 1_000_003 + epoch)
            learner.train()
            learner.start_epoch(epoch)
            sums: dict[str, Tensor] = {}
            norms = StepNorms()
            update = Update(epoch < plan.budget.warmup_epochs, state.scaler, average)
            for number, (images, labels, *targets) in enumerate(loader.epoch(epoch)):
                done = epoch * per_epoch + number
                factor = lr_factor(plan.optimizer, done, per_epoch, epochs)
                set_lr(optimizer, factor)
                batch = Batch(images, labels, shared.gather, shared.local_slice, *targets)
                terms = step(learner, batch, optimizer, plan, update, norms)
                for name, term in terms.items():
                    sums[name] = sums.get(name, torch.zeros_like(term)) + term
            check_epoch(norms, learner, epoch + 1)  # waits for the device
            speed = images_per_epoch / (time.perf_counter() - started)
            state.progress.epoch = epoch + 1
            costs = {"learning_rate": plan.optimizer.lr * factor, SPEED: speed}
            yield Epoch(epoch + 1, {**_means(sums, per_epoch), **costs})


def _means(sums: dict[str, Tensor], steps: int) -> dict[str, float]:
    means = {f"loss_{name}": total.item() / steps for name, total in sums.items()}
    means["loss"] = sum(means.values())
    return means
