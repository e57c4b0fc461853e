"""Reporters of the epochs of a training: to its loggers, Ray Tune and Ray Train."""

from collections.abc import Mapping
from typing import Any

from ray import train, tune

from dmlray.learn.loop import Epoch
from dmlray.plans.config_sources import flatten
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.loggers import Group, Logger, grouped, open_logger
from dmlray.scores import Scores

_COSTS = ("loss", "seconds")  # metrics by which a logger compares runs, beside the scores


class EpochLogger:
    """Log each epoch of a run with the loggers of its plan; a finished run logs nothing.

    Args:
        settings: Settings by which runs are compared; None: the whole plan.
    """

    def __init__(
        self, plan: Experiment, folder: RunFolder, settings: Mapping[str, Any] | None = None
    ) -> None:
        folder.make()
        self._plan, self._folder = plan, folder
        self._settings = flatten(plan.document()) if settings is None else settings
        on_test = plan.protocol.selection == "best_on_test"
        self._scored_on: Group = "test" if on_test else "validation"
        self._logger: Logger | None = None
        self._last = 0

    def __call__(self, epoch: Epoch) -> None:
        """Log the metrics of an epoch, and with the first one the settings."""
        begins = self._logger is None
        self._logger = self._logger or open_logger(self._folder, self._plan.loggers)
        self._logger.scalars(epoch.number, grouped(epoch.metrics, self._scored_on))
        if begins:
            names = (*self._plan.protocol.metrics, *_COSTS)
            compared = grouped(
                {name: epoch.metrics[name] for name in names if name in epoch.metrics},
                self._scored_on,
            )
            self._logger.hparams(self._settings, compared)
        self._last = epoch.number

    def finish(self, scores: Scores) -> None:
        """Log the scores of the test classes, unless each epoch was scored on them."""
        if self._logger and scores.metrics and self._scored_on != "test":
            self._logger.scalars(
                self._last, {f"test/{name}": value for name, value in scores.metrics.items()}
            )

    def close(self) -> None:
        """Close the loggers."""
        if self._logger:
            self._logger.close()


class ToTune:
    """Report each epoch of a trial to Tune, after logging it."""

    def __init__(self, logger: EpochLogger) -> None:
        self._logger = logger

    def __call__(self, epoch: Epoch) -> None:
        """Log an epoch and report it to Tune."""
        self._logger(epoch)
        tune.report({"epoch": epoch.number, **epoch.metrics})


def to_train(epoch: Epoch) -> None:
    """Report an epoch to Ray Train; every worker of a group must call it."""
    train.report({"epoch": epoch.number, **epoch.metrics})
