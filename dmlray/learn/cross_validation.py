"""Train all folds of one setting in lockstep; report the mean over folds after each epoch."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import zip_longest
from statistics import fmean, pstdev
from typing import Any

from dmlray.errors import DataError
from dmlray.evaluation.metrics import is_known
from dmlray.learn import metrics_log
from dmlray.learn.class_split import fold_split, load_dataset
from dmlray.learn.loop import Epoch
from dmlray.learn.runtime import Runtime
from dmlray.learn.trainer import Training
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder


def fold_epochs(
    plan: Experiment, folder: RunFolder, runtime: Runtime, numbers: Sequence[int]
) -> Iterator[list[Epoch]]:
    """Train the folds `numbers` by turns, one epoch at a time; yield their epochs together.

    Raises:
        DataError: If the folds' metrics logs do not have the same epochs.
    """
    dataset = load_dataset(plan)
    trainings = [
        Training(plan, fold_split(plan, dataset, number), folder.fold(number), runtime)
        for number in numbers
    ]
    with ExitStack() as stack:
        each = [stack.enter_context(closing(training.epochs())) for training in trainings]
        for number, epochs in enumerate(zip_longest(*each), 1):
            for epoch, training in zip(epochs, trainings, strict=True):
                if epoch is None or epoch.number != number:
                    problem = f"lacks epoch {number} or has it twice"
                    remedy = f"delete {training.folder} and resume the run to train it again"
                    raise DataError(f"{training.folder.metrics}: {problem}; {remedy}")
            yield list(epochs)


def mean_over_folds(folds: Sequence[dict[str, float]], metric: str) -> dict[str, float]:
    """Return the mean of each metric; for `metric` also each fold and the standard deviation.

    A score that a fold is too small for is left out, a missing count is 0.
    """
    names = dict.fromkeys(name for fold in folds for name in fold)
    shared = [n for n in names if not is_known(n) or all(n in fold for fold in folds)]
    means = {name: fmean(fold.get(name, 0) for fold in folds) for name in shared}
    each = {f"fold{number}/{metric}": fold[metric] for number, fold in enumerate(folds)}
    return {**means, f"{metric}_std": pstdev(fold[metric] for fold in folds), **each}


class Clock:
    """Wall-clock seconds of training up to each epoch, over all sessions.

    Args:
        past: Lines of an earlier session's metrics log.
    """

    def __init__(self, past: Sequence[dict[str, Any]]) -> None:
        self._past = {line["epoch"]: line["seconds"] for line in past if "seconds" in line}
        self._total, self._since = 0.0, time.monotonic()

    def at(self, epoch: int) -> float:
        """Return the seconds up to `epoch`; to be called once after each epoch."""
        now = time.monotonic()
        self._total = self._past.get(epoch, self._total + now - self._since)
        self._since = now
        return self._total


def lockstep(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Iterator[Epoch]:
    """Train all folds in this process; log each epoch in the trial's metrics log and yield it."""
    folder.make()
    clock = Clock(metrics_log.read(folder.metrics))
    metrics_log.rewind(folder.metrics, 0)
    for epochs in fold_epochs(plan, folder, runtime, range(plan.protocol.fold_count)):
        number = epochs[0].number
        means = mean_over_folds([epoch.metrics for epoch in epochs], plan.protocol.metric)
        metrics = {**means, "seconds": clock.at(number)}
        metrics_log.append(folder.metrics, {"epoch": number, **metrics})
        yield Epoch(number, metrics)
