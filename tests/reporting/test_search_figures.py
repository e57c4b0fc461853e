"""Figures of a search hold the values that they say they draw."""

from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from dmlray.distributions import Choice, Float, Int
from dmlray.plans.search_space import Ranges
from dmlray.reporting import figures, search_figures
from dmlray.reporting.search_report import Row, SearchReport

RANGES = Ranges({"m.loss": Choice(("a", "b")), "lr": Float(1e-4, 1e-2, log=True), "n": Int(1, 5)})
ROWS = [
    Row(0, "COMPLETE", {"map_at_r": 0.40, "seconds": 9.0}, {"m.loss": "a", "lr": 1e-3, "n": 1}),
    Row(1, "PRUNED", {"map_at_r": 0.05}, {"m.loss": "b", "lr": 1e-2, "n": 5}),
    Row(2, "FAIL", {}, {"m.loss": "a", "lr": 1e-4}, reason="out of memory"),
    Row(3, "COMPLETE", {"map_at_r": 0.50, "seconds": 5.0}, {"m.loss": "b", "lr": 1e-4}),
    Row(4, "COMPLETE", {"map_at_r": 0.45, "seconds": 2.0}, {"m.loss": "b", "lr": 1e-2, "n": 3}),
]
REPORT = SearchReport(("map_at_r", "seconds"), ROWS, ROWS[3], front=[ROWS[3], ROWS[4]])


def points(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Points by the label of their kind."""
    (axes,) = figure.axes
    return {
        str(drawn.get_label()): [(float(x), float(y)) for x, y in np.asarray(drawn.get_offsets())]
        for drawn in axes.collections
    }


def test_the_history_has_every_trial_once_and_the_best_so_far() -> None:
    figure = search_figures.history(REPORT)
    least = 0.4 - 0.3 * (0.5 - 0.4)  # a trial that was stopped early is drawn at the edge
    found = points(figure)
    assert found["complete"] == [(0, 0.40), (3, 0.50), (4, 0.45)]
    assert found["stopped early"][0] == pytest.approx((1, least))
    assert [x for x, _ in found["failed"]] == [2]
    (axes,) = figure.axes
    lines = {str(line.get_label()): line for line in axes.lines}
    assert list(np.asarray(lines["best so far"].get_ydata())) == [0.40, 0.50, 0.50]
    assert list(np.asarray(lines["trial 0"].get_ydata())) == [0.40, 0.40]


def test_importances_are_bars_with_the_largest_on_top() -> None:
    (axes,) = search_figures.importances({"lr": 0.75, "n": 0.25}).axes
    widths = [bar.get_width() for bar in axes.patches]  # type: ignore[attr-defined]
    assert widths == [0.25, 0.75]
    assert [text.get_text() for text in axes.texts] == ["25%", "75%"]


@pytest.mark.parametrize(
    ("key", "places"), [("m.loss", [0, 1, 1]), ("lr", [1e-3, 1e-4, 1e-2]), ("n", [1, 3])]
)
def test_a_slice_has_the_trials_that_were_asked_for_the_key(key: str, places: list[float]) -> None:
    figure = search_figures.slice_of(REPORT, key, RANGES.space[key])
    assert figure is not None
    (axes,) = figure.axes
    complete = axes.collections[0]
    assert np.asarray(complete.get_offsets())[:, 0].tolist() == places
    assert axes.get_xscale() == ("log" if key == "lr" else "linear")
    if key == "m.loss":
        assert [text.get_text() for text in axes.get_xticklabels()] == ["a", "b"]


def test_a_key_without_a_trial_has_no_slice() -> None:
    alone = SearchReport(("map_at_r",), ROWS[2:3], None)
    assert search_figures.slice_of(alone, "n", RANGES.space["n"]) is None


def test_parallel_coordinates_are_on_the_scale_of_each_range_and_the_best_is_red() -> None:
    (axes,) = search_figures.parallel_coordinates(REPORT, RANGES).axes
    lines: dict[tuple[float, ...], Any] = {
        tuple(np.asarray(line.get_ydata(), float)): line for line in axes.lines
    }
    first = next(line for line in lines if line[:3] == pytest.approx((0, 0.5, 0)))
    floor = search_figures.floor(REPORT)
    assert first[3] == pytest.approx((0.40 - floor) / (0.50 - floor))
    best = next(line for line in lines if line[:2] == (1, 0) and np.isnan(line[2]))
    assert best[3] == 1
    assert to_hex(lines[best].get_color()) == "#c62828"
    stopped = next(line for line in lines if line[:3] == (1, 1, 1))
    assert (stopped[3], lines[stopped].get_linestyle()) == (0, ":")


def test_lines_in_the_middle_keep_both_ends_in_sight() -> None:
    rows = [Row(0, "COMPLETE", {"map_at_r": 0.4}, {"lr": 1e-3})]
    report = SearchReport(("map_at_r",), rows, rows[0])
    (axes,) = search_figures.parallel_coordinates(report, RANGES).axes
    low, high = axes.get_ylim()
    assert all(low < text.get_position()[1] < high for text in axes.texts)


def test_the_front_is_told_apart() -> None:
    found = points(search_figures.front(REPORT, "seconds"))
    assert found == {"complete": [(9, 0.40)], "Pareto front": [(5, 0.50), (2, 0.45)]}


def test_names_are_no_formulas_and_long_ones_are_cut() -> None:
    key = "$x_{" + "y" * 60
    rows = [Row(0, "COMPLETE", {"map_at_r": 0.4}, {key: "$\\frac"})]
    report, ranges = SearchReport(("map_at_r",), rows, rows[0]), Ranges({key: Choice(("$\\frac",))})
    for figure in (
        search_figures.parallel_coordinates(report, ranges),
        search_figures.slice_of(report, key, ranges.space[key]),
        search_figures.importances({key: 1.0}),
    ):
        assert figure is not None
        assert figures.png(figure).startswith(b"\x89PNG")


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[1:3], [ROWS[0], ROWS[0]]])
def test_few_or_equal_trials_can_be_drawn(rows: list[Row]) -> None:
    report = SearchReport(("map_at_r",), rows, None)
    for figure in (
        search_figures.history(report), search_figures.parallel_coordinates(report, RANGES)
    ):  # fmt: skip
        assert figures.png(figure).startswith(b"\x89PNG")
