"""Loggers of numbers and pictures per step: one file each; its name is its only registration.

Each file holds a class `RunLogger` that is made with a run folder and follows `Logger`.
"""

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, Protocol

import numpy as np

from dmlray.errors import ConfigError
from dmlray.evaluation import metrics
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import shortened

DEFAULT = ("tensorboard",)
Group = Literal["validation", "test"]  # of scores: the classes that they are of


class Logger(Protocol):
    """Writes what one run measures. A resumed run logs all its steps again, from the first."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log all values at `step`; a name is GROUP/METRIC without "@"."""

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Log the settings of the run and the metrics by which runs are compared."""

    def image(self, name: str, image: np.ndarray) -> None:
        """Log a picture, uint8 (height, width, 3)."""

    def close(self) -> None:
        """Write what is left; nothing is logged afterwards."""


def names() -> list[str]:
    """Names of all loggers, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def check(loggers: Sequence[str]) -> None:
    """Import what `loggers` need.

    Raises:
        ConfigError: If one is unknown or its library is not installed.
    """
    for name in loggers:
        _load(name)


def open_logger(folder: RunFolder, loggers: Sequence[str] = DEFAULT) -> Logger:
    """Make the folder and open its loggers, as one.

    Raises:
        ConfigError: If one is unknown or its library is not installed.
    """
    types = [_load(name) for name in loggers]
    folder.make()
    return _Together([each(folder) for each in types])


def grouped(values: Mapping[str, float], scored_on: Group = "validation") -> dict[str, float]:
    """Name the metrics of an epoch GROUP/METRIC: scores by the classes they are of, others train/.

    The size of the embeddings never changes and is left out.
    """
    return {
        f"{scored_on if _is_score(name) else 'train'}/{name}": value
        for name, value in values.items()
        if name != "embedding_size"
    }


def _is_score(name: str) -> bool:
    """Whether a metric is one of retrieval, be it of one fold or a deviation between folds."""
    return metrics.is_known(name.rpartition("/")[2].removesuffix("_std"))


def _load(name: str) -> Any:
    if name not in names():
        known = nearest_or_all(name, names())
        raise ConfigError("loggers", [f"unknown logger {shortened(name)}.{known}"])
    try:
        return importlib.import_module(f"{__name__}.{name}").RunLogger
    except ImportError as error:
        install = f"pip install 'dmlray[{name}]'"
        problem = f"{name} is not installed ({error}). Install it: {install}"
        raise ConfigError("loggers", [problem]) from error


class _Together:
    """Several loggers as one."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for logger in self._loggers:
            logger.scalars(step, values)

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        for logger in self._loggers:
            logger.hparams(values, metrics)

    def image(self, name: str, image: np.ndarray) -> None:
        for logger in self._loggers:
            logger.image(name, image)

    def close(self) -> None:
        with ExitStack() as stack:  # one that fails keeps no other from closing
            for logger in self._loggers:
                stack.callback(logger.close)
