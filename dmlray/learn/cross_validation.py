"""All folds of one setting, side by side: after each epoch the mean over folds."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import zip_longest
from statistics import fmean, pstdev
from typing import Any

from dmlray.errors import DataError
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
    """Train the folds `numbers`, epoch by epoch in turn; yield their epochs together.

    Raises:
        DataError: If the folds' journals do not hold the same epochs.
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
                    mend = f"delete {training.folder} and resume the run to train it again"
                    raise DataError(f"{training.folder.metrics}: {problem}; {mend}")
            yield list(epochs)


def run_in_lockstep(folds: Sequence[dict[str, float]], metric: str) -> dict[str, float]:
    """Mean of every metric over folds; of `metric` also each fold and the standard deviation.

    A count that a fold lacks is 0 there.
    """
    names = dict.fromkeys(name for fold in folds for name in fold)
    means = {name: fmean(fold.get(name, 0) for fold in folds) for name in names}
    each = {f"fold{number}/{metric}": fold[metric] for number, fold in enumerate(folds)}
    return {**means, f"{metric}_std": pstdev(fold[metric] for fold in folds), **each}


class Clock:
    """Seconds of training up to each epoch, over all sessions: `past` are an earlier one's lines.

    They depend on the machine and on what else runs there, and repeat no better than that.
    """

    def __init__(self, past: Sequence[dict[str, Any]]) -> None:
        self._past = {line["epoch"]: line["seconds"] for line in past if "seconds" in line}
        self._total, self._since = 0.0, time.monotonic()

    def at(self, epoch: int) -> float:
        """Ask once after each epoch."""
        now = time.monotonic()
        self._total = self._past.get(epoch, self._total + now - self._since)
        self._since = now
        return self._total


def lockstep(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Iterator[Epoch]:
    """Every epoch of all folds in this process, written to the trial's own journal."""
    folder.make()
    clock = Clock(metrics_log.read(folder.metrics))
    metrics_log.rewind(folder.metrics, 0)
    for epochs in fold_epochs(plan, folder, runtime, range(plan.protocol.fold_count)):
        number = epochs[0].number
        means = run_in_lockstep([epoch.metrics for epoch in epochs], plan.protocol.metric)
        metrics = {**means, "seconds": clock.at(number)}
        metrics_log.append(folder.metrics, {"epoch": number, **metrics})
        yield Epoch(number, metrics)
