"""Scores over ensemble sizes: what is drawn and where, for the page and the picture alike."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from dmlray.evaluation.metrics import label as label_of
from dmlray.scores import Scores

WIDTH, HEIGHT = 640, 360  # pixels
LEFT, RIGHT, TOP, BOTTOM = 48, WIDTH - 18, 34, HEIGHT - 44  # of the area that holds the lines
COLOURS = {"recall_at_1": "#0b6e99", "map_at_r": "#7a3e9d"}
ZERO_SHOT = "zero-shot"
_OF_OTHERS = (
    "metrics", "half_width", "curve", "parts", "concatenated", "zero_shot", "embeddings_sha256",
)  # fmt: skip


class Axis(NamedTuple):
    """Numbers from `low` to `high` lie on pixels from `start` to `end`; `ticks` are written."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """The pixel of a number."""
        part = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * part


class Line(NamedTuple):
    """One metric at sizes 1, 2, ..., and of the features before any training where known."""

    label: str
    colour: str
    values: tuple[float, ...]
    zero_shot: float | None


@dataclass(frozen=True)
class Plot:
    """Lines over sizes (x) as fractions (y)."""

    lines: tuple[Line, ...]
    x: Axis
    y: Axis

    def points(self, line: Line) -> list[tuple[float, float]]:
        """The pixels (x, y) of a line."""
        return [(self.x.at(size), self.y.at(value)) for size, value in enumerate(line.values, 1)]


def plot_of(scores: Scores) -> Plot:
    """The picture of a curve of at least two sizes."""
    lines = tuple(_line(name, scores) for name in COLOURS if name in scores.metrics)
    shown = [value for line in lines for value in line.values]
    shown += [line.zero_shot for line in lines if line.zero_shot is not None]
    step = step_of(max(shown) - min(shown))
    low = math.floor(min(shown) / step + 1e-9)
    high = max(low + 1, math.ceil(max(shown) / step - 1e-9))
    levels = tuple(number * step for number in range(low, high + 1))
    size = len(scores.curve)
    x = Axis(1, size, LEFT, RIGHT, sizes(size))
    return Plot(lines, x, Axis(levels[0], levels[-1], BOTTOM, TOP, levels))


def step_of(span: float) -> float:
    """The least of 1, 2, 5 times a power of ten that divides a span into at most six parts."""
    least = max(span / 6, 0.001)
    power = 10.0 ** math.floor(math.log10(least) + 1e-9)
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def sizes(most: int) -> tuple[float, ...]:
    """Sizes to write below the line: the first, the last, and round ones far enough from both."""
    step = max(1, round(step_of(most)))
    between = range(step, most, step)
    return (1, *(size for size in between if size > 1 and most - size >= step / 2), most)


def document(scores: Scores) -> dict[str, Any]:
    """The curve with all that it depends on, for whoever reads it without dmlray."""
    protocol = {key: value for key, value in asdict(scores).items() if key not in _OF_OTHERS}
    by_size: Sequence[dict[str, float]] = [
        {"members": size, **metrics} for size, metrics in enumerate(scores.curve, 1)
    ]
    return {"protocol": protocol, "zero_shot": scores.zero_shot, "sizes": by_size}


def _line(name: str, scores: Scores) -> Line:
    values = tuple(metrics[name] for metrics in scores.curve)
    label = f"{label_of(name)} {values[-1]:.1%}"
    return Line(label, COLOURS[name], values, scores.zero_shot.get(name))
