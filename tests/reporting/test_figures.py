"""The figure shows the numbers: each line at its values, on axes that cover them."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from dmlray.reporting.figures import COLOURS, add_text, ensemble_curve, pixels, png
from dmlray.scores import Scores
from tests.reporting.test_run_report import CURVE, scores

EVIL = "<script>$x_{1$\n\x1b[2J\\frac\u9ce5\udcff"


def axes_of(scores: Scores) -> Axes:
    figure = ensemble_curve(scores)
    figure.draw_without_rendering()
    return figure.axes[0]


@pytest.mark.parametrize("name", COLOURS)
def test_a_line_goes_through_its_values(name: str) -> None:
    (line,) = (line for line in axes_of(scores()).lines if line.get_color() == COLOURS[name])
    assert np.asarray(line.get_xdata()).tolist() == [1, 2]
    assert np.asarray(line.get_ydata()).tolist() == [metrics[name] for metrics in CURVE]


def test_a_line_has_its_colour_in_the_picture() -> None:
    image = pixels(ensemble_curve(scores()))
    assert image.dtype == np.uint8
    assert image.shape == (640, 1120, 3)
    for colour in COLOURS.values():
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (np.abs(image.astype(int) - wanted).max(2) < 8).sum() > 1000


def test_zero_shot_is_dashed_at_its_height_where_it_is_known() -> None:
    def dashed(found: Scores) -> list[float]:
        lines = [line for line in axes_of(found).lines if line.get_linestyle() == "--"]
        heights = [np.asarray(line.get_ydata()) for line in lines]
        return [float(each[0]) for each in heights if len(each)]

    assert dashed(scores(zero_shot={"recall_at_1": 0.625})) == [0.625]
    assert dashed(scores()) == []


def test_the_legend_has_the_last_values() -> None:
    legend = axes_of(scores(zero_shot={"map_at_r": 0.1})).get_legend()
    assert legend is not None
    shown = [text.get_text() for text in legend.get_texts()]
    assert shown == ["Recall@1 75.0%", "MAP@R 25.0%", "zero-shot"]


@pytest.mark.parametrize("values", [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.87, 0.8703)])
def test_the_axis_covers_all_values_and_stays_readable(values: tuple[float, float]) -> None:
    curve = [{**CURVE[0], "map_at_r": value, "recall_at_1": value} for value in values]
    axes = axes_of(scores(curve=curve, metrics=curve[-1]))
    low, high = axes.get_ylim()
    assert 0 <= low <= min(values)
    assert max(values) <= high <= 1
    levels = [level for level in axes.get_yticks() if low <= level <= high]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert 2 <= len(levels) <= 9
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("size", [2, 3, 7, 48, 1000])
def test_sizes_on_the_axis_are_whole(size: int) -> None:
    axes = axes_of(scores(curve=[*CURVE[:1] * (size - 1), CURVE[1]]))
    ticks = [tick for tick in axes.get_xticks() if 1 <= tick <= size]
    assert 1 < len(ticks) <= 9
    assert all(tick == int(tick) for tick in ticks)


def test_long_names_and_remarks_stay_inside_the_picture() -> None:
    plain, long = ensemble_curve(scores()), ensemble_curve(scores())
    add_text(long, "run " * 40, "word " * 100 + "x" * 300)
    image = pixels(long)
    edges = (image[:6], image[-6:], image[:, :6], image[:, -6:])
    assert all((edge == 255).all() for edge in edges)
    assert image.shape[0] > pixels(plain).shape[0]


def test_names_are_drawn_as_they_are_and_not_as_formulas() -> None:
    figure = ensemble_curve(scores())
    add_text(figure, EVIL, EVIL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of letters that it cannot draw
        assert png(figure)
    assert figure.get_suptitle() == r"<script>$x_{1$\n\x1b[2J\frac\u9ce5\udcff"


def test_threads_draw_the_same_picture_at_once() -> None:
    barrier = threading.Barrier(4)

    def drawn(_: int) -> bytes:
        barrier.wait()
        return png(ensemble_curve(scores()))

    with ThreadPoolExecutor(4) as pool:
        pictures = set(pool.map(drawn, range(4)))
    (picture,) = pictures
    with Image.open(BytesIO(picture)) as image:
        assert (image.format, image.size) == ("PNG", (1120, 640))
