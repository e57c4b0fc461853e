"""What a metrics log holds that a seed determines: all but the times."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dmlray.learn import metrics_log

_TIMES = (metrics_log.SPEED, "seconds")


def without_times(line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in line.items() if name not in _TIMES}


def epochs_of(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a metrics log without times, each of which must have a speed."""
    lines = metrics_log.read(path)
    assert all(line[metrics_log.SPEED] > 0 for line in lines)
    return [without_times(line) for line in lines]
