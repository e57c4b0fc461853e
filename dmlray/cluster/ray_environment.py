"""Environment variables and constants of Ray, set while Ray is used."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from ray import _raylet
from ray._private import ray_constants, utils

# Ray reads it in each worker, as it starts: one without a share of a GPU sees none. A visible GPU
# would be used by training on a CPU, too: Ray Train and torch's optimizers query its state.
WORKERS = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
QUIET = {  # defaults, which a user's environment overrides
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # a report waits for the next check
    **WORKERS,
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # dmlray has its own logs
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # else Tune would return as if finished
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports its reason instead
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # dmlray logs one sentence instead; 1 shows tracebacks
    "TUNE_WARN_THRESHOLD_S": "60",
}


@contextmanager
def variables(values: Mapping[str, str]) -> Iterator[None]:
    """Set `values` in the block, for this process and those that it starts."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    _read_again()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _read_again()


def _read_again() -> None:
    """Make Ray read mode and token again, which it caches for the process."""
    _raylet.Config.initialize("")  # type: ignore[attr-defined]
    _raylet.AuthenticationTokenLoader.instance().reset_cache()  # type: ignore[attr-defined]


@contextmanager
def signals_left_alone() -> Iterator[None]:
    """Keep Ray from handling SIGTERM in this process: it would exit at once."""
    with (
        replaced(utils, "set_sigterm_handler", lambda handler: None),
        replaced(ray_constants, "RAY_DISABLE_FAILURE_SIGNAL_HANDLER", True),
    ):
        yield


@contextmanager
def replaced(owner: ModuleType | type, name: str, value: Any) -> Iterator[None]:
    """Replace a function or constant of Ray in the block, for lack of a setting."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
