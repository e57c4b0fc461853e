"""Distributions over settings, from which a search draws."""

import math
from dataclasses import dataclass

Value = bool | int | float | str | None


@dataclass(frozen=True)
class Float:
    """Real numbers in [low, high]: uniform, log-uniform (`log`) or on a grid (`step`)."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log, self.step)

    def contains(self, value: Value) -> bool:
        """Whether a value is in the range and on its step."""
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return inside and _on_step(value, self.low, self.step)

    @property
    def size(self) -> float:
        """Number of values."""
        return _count(self.low, self.high, self.step) if self.step else math.inf


@dataclass(frozen=True)
class Int:
    """Integers in [low, high], both included."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log, None if self.step == 1 else self.step)

    def contains(self, value: Value) -> bool:
        """Whether a value is an integer in the range and on its step."""
        inside = isinstance(value, int) and self.low <= value <= self.high
        return inside and _on_step(value, self.low, self.step)

    @property
    def size(self) -> float:
        """Number of values."""
        return _count(self.low, self.high, self.step)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Value, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ValueError("a choice needs at least one value")
        if len(set(self.values)) < len(self.values):
            raise ValueError("choices repeat a value")

    def contains(self, value: Value) -> bool:
        """Whether a value is one of the choices."""
        return value in self.values

    @property
    def size(self) -> float:
        """Number of values."""
        return len(self.values)


Distribution = Float | Int | Choice
Space = dict[str, Distribution]


def _check_range(low: float, high: float, log: bool, step: float | None) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"low must be at most high, got low={low} and high={high}")
    if log and low <= 0:
        raise ValueError(f"a log range must start above 0, got low={low}")
    if log and step is not None:
        raise ValueError("a range is either log or in steps, not both")
    if step is not None and step <= 0:
        raise ValueError(f"step must be above 0, got {step}")
    if step is not None and not _on_step(high, low, step):
        raise ValueError(
            f"high must be low plus a multiple of step, got {low}, {high} and step={step}"
        )


def _on_step(value: Value, low: float, step: float | None) -> bool:
    steps = (float(value or 0) - low) / step if step else 0.0
    return abs(steps - round(steps)) < 1e-6  # decimals are not exact in binary


def _count(low: float, high: float, step: float) -> int:
    return round((high - low) / step) + 1
