"""Figures of a search: history, importances, slices, parallel coordinates, Pareto front."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dmlray.distributions import Choice, Distribution
from dmlray.evaluation.metrics import is_known, label
from dmlray.plans.search_space import Ranges
from dmlray.reporting.figures import drawable
from dmlray.reporting.search_report import Row, SearchReport, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 160
_BLUE, _RED, _GREY, _GRID = "#0b6e99", "#c62828", "#888888", "#dddddd"
_LONGEST = 24  # characters of a key or a value


def history(report: SearchReport) -> "Figure":
    """Draw the first metric of each trial, and the best so far, over the trials' numbers."""
    from matplotlib.ticker import MaxNLocator

    metric, rows, least = report.metrics[0], report.trained, floor(report)
    figure, axes = _figure(5.6, 3.2)
    for state, marker, colour, text in (
        ("COMPLETE", "o", _BLUE, "complete"),
        ("PRUNED", "v", _GREY, "stopped early"),
    ):
        chosen = [row for row in rows if _has(row, state, metric)]
        values = [max(least, row.metrics[metric]) for row in chosen]
        numbers = [row.number for row in chosen]
        if chosen:
            axes.scatter(numbers, values, marker=marker, c=colour, s=22, label=text)
    failed = [row.number for row in rows if row.state == "FAIL"]
    if failed:
        style: dict[str, Any] = {"marker": "x", "c": _RED, "clip_on": False}
        axes.scatter(failed, [0.02] * len(failed), transform=axes.get_xaxis_transform(), **style,
                     label="failed")  # fmt: skip
    _best_so_far(axes, [row for row in rows if _has(row, "COMPLETE", metric)], metric)
    _trial_0(axes, rows[0], metric)
    _style(axes, metric)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel("trial")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)
    return figure


def floor(report: SearchReport) -> float:
    """The least value of the first metric that figures show, well below all complete trials.

    Trials that were stopped early have far lower scores, which would leave no place for others.
    """
    metric = report.metrics[0]
    values = [row.metrics[metric] for row in report.trained if _has(row, "COMPLETE", metric)]
    return min(values) - 0.3 * (max(values) - min(values)) if len(values) > 1 else -math.inf


def _best_so_far(axes: "Axes", complete: Sequence[Row], metric: str) -> None:
    best, values = -math.inf, []
    for row in complete:
        best = max(best, row.metrics[metric])
        values.append(best)
    if values:
        numbers = [row.number for row in complete]
        axes.step(numbers, values, where="post", c=_BLUE, lw=1.2, label="best so far")


def _trial_0(axes: "Axes", first: Row, metric: str) -> None:
    if first.number == 0 and _has(first, "COMPLETE", metric):
        value = first.metrics[metric]
        axes.axhline(value, ls="--", lw=1, c="#222222", label="trial 0")


def importances(shares: dict[str, float]) -> "Figure":
    """Draw the share of each key as a bar, the largest on top."""
    figure, axes = _figure(5.6, 0.7 + 0.28 * len(shares))
    keys = list(shares)[::-1]
    bars = axes.barh([_cut(key) for key in keys], [shares[key] for key in keys], color=_BLUE)
    axes.bar_label(bars, [f"{shares[key]:.0%}" for key in keys], padding=3, fontsize=8)
    axes.set_xlim(0, max(shares.values()) * 1.15 or 1)
    axes.set_xticks([])
    axes.tick_params(labelsize=8, left=False)
    axes.spines[:].set_visible(False)
    return figure


def slice_of(report: SearchReport, key: str, distribution: Distribution) -> "Figure | None":
    """Draw the first metric over the values of one key; later trials are darker."""
    metric, least = report.metrics[0], floor(report)
    figure, axes = _figure(3.6, 2.6)
    rows = [row for row in _scored(report) if key in row.values]
    if not rows:
        return None
    places = [_place(row.values[key], distribution) for row in rows]
    last = max(1, report.rows[-1].number)
    colours = [0.25 + 0.75 * row.number / last for row in rows]
    for state, marker in (("COMPLETE", "o"), ("PRUNED", "v")):
        chosen = [n for n, row in enumerate(rows) if row.state == state]
        axes.scatter(
            [places[n] for n in chosen], [max(least, rows[n].metrics[metric]) for n in chosen],
            marker=marker, c=[colours[n] for n in chosen], cmap="Blues", vmin=0, vmax=1, s=20,
            edgecolors=_GREY, linewidths=0.4,
        )  # fmt: skip
    if report.best and key in report.best.values:
        place = _place(report.best.values[key], distribution)
        axes.scatter(
            [place], [report.best.metrics[metric]], s=70, facecolors="none", edgecolors=_RED
        )
    if isinstance(distribution, Choice):
        texts = [_cut(short(value)) for value in distribution.values]
        axes.set_xticks(range(len(texts)), texts, fontsize=8)
        axes.set_xlim(-0.5, len(texts) - 0.5)
    elif distribution.log:
        axes.set_xscale("log")
        ends = (
            distribution.low,
            math.sqrt(distribution.low * distribution.high),
            distribution.high,
        )
        axes.set_xticks(ends, [f"{end:.2g}" for end in ends])
        axes.set_xticks([], minor=True)
    _style(axes, metric)
    axes.tick_params(labelsize=8)
    return figure


def parallel_coordinates(report: SearchReport, ranges: Ranges) -> "Figure":
    """Draw each trial as a line over its values and the first metric; the best one is red.

    Each axis spans the range that was searched; a line has a gap where a key was not asked for.
    """
    from matplotlib import colormaps

    metric, rows = report.metrics[0], _scored(report)
    keys = [key for key in ranges.space if any(key in row.values for row in rows)]
    figure, axes = _figure(max(5.6, 1.05 * (len(keys) + 1)), 4.2)
    scores = [max(floor(report), row.metrics[metric]) for row in rows]
    low, high = min(scores), max(scores)
    best = report.best.number if report.best else None
    for row in sorted(rows, key=lambda row: (row.number == best, row.metrics[metric])):
        share = _share(max(low, row.metrics[metric]), low, high)
        line = [_height(row.values.get(key), ranges.space[key]) for key in keys] + [share]
        style: dict[str, Any] = {"c": colormaps["viridis"](share), "lw": 1, "alpha": 0.7}
        if row.number == best:
            style = {"c": _RED, "lw": 2.2, "marker": "o", "ms": 4}
        axes.plot(range(len(line)), line, ls="-" if row.state == "COMPLETE" else ":", **style)
    for place, key in enumerate(keys):
        for height, text in _marks(ranges.space[key]):
            axes.text(place, height, f" {_cut(text)}", fontsize=7, va="center")
        axes.axvline(place, c=_GREY, lw=0.8, zorder=0)
    for height, value in ((0.0, low), (1.0, high)):
        axes.text(len(keys), height, f" {_score(value, metric)}", fontsize=7, va="center")
    axes.axvline(len(keys), c=_GREY, lw=0.8, zorder=0)
    names = [*(_cut(key.replace(".", ".\n", 1)) for key in keys), drawable(label(metric))]
    axes.set_xticks(range(len(names)), names, fontsize=8, rotation=30, ha="right")
    axes.set_xlim(-0.2, len(keys) + 0.6)
    axes.set_ylim(-0.05, 1.05)  # lines may all be in the middle, texts stand at both ends
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure


def front(report: SearchReport, other: str) -> "Figure":
    """Draw the first metric over another one; the Pareto front is red."""
    metric = report.metrics[0]
    figure, axes = _figure(5.6, 3.2)
    best = {row.number for row in report.front}
    for chosen, colour, text in ((False, _BLUE, "complete"), (True, _RED, "Pareto front")):
        rows = [
            row
            for row in report.trained
            if _has(row, "COMPLETE", other) and (row.number in best) is chosen
        ]
        points = [[row.metrics[name] for row in rows] for name in (other, metric)]
        if rows:
            axes.scatter(points[0], points[1], c=colour, s=24, label=text)
    _style(axes, metric)
    axes.set_xlabel(drawable(label(other)))
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
    return figure


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure((width, height), _DPI, facecolor="white", layout="constrained")
    return figure, figure.add_subplot()


def _style(axes: "Axes", metric: str) -> None:
    from matplotlib.ticker import PercentFormatter

    if is_known(metric):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_ylabel(drawable(label(metric)), fontsize=8)
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _scored(report: SearchReport) -> list[Row]:
    """Trained trials that have the first metric, be it of their last epoch before they ended."""
    metric = report.metrics[0]
    return [row for row in report.trained if row.state != "FAIL" and metric in row.metrics]


def _has(row: Row, state: str, metric: str) -> bool:
    return row.state == state and metric in row.metrics


def _place(value: Any, distribution: Distribution) -> float:
    if isinstance(distribution, Choice):
        return float(distribution.values.index(value))
    return float(value)


def _height(value: Any, distribution: Distribution) -> float:
    """Where a value lies in its range, in [0, 1] and on its scale; NaN without one."""
    if isinstance(distribution, Choice):
        if value not in distribution.values:
            return math.nan
        return _share(distribution.values.index(value), 0, len(distribution.values) - 1)
    if value is None:
        return math.nan
    scale = math.log if distribution.log else float
    return _share(scale(value), scale(distribution.low), scale(distribution.high))


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _marks(distribution: Distribution) -> list[tuple[float, str]]:
    """What stands on an axis: all choices, or both ends."""
    if isinstance(distribution, Choice):
        return [(_height(value, distribution), short(value)) for value in distribution.values]
    ends = dict.fromkeys((distribution.low, distribution.high))
    return [(_height(end, distribution), short(end)) for end in ends]


def _score(value: float, metric: str) -> str:
    return f"{value:.1%}" if is_known(metric) else short(value)


def _cut(text: str) -> str:
    """Text that fits beside an axis; names are no formulas."""
    shown = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return "\n".join(drawable(part) for part in shown.split("\n")).replace("$", r"\$")
