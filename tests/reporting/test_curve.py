"""The picture shows the numbers: each line where its values are, on an axis that says so."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from dmlray.reporting.curve import BOTTOM, COLOURS, TOP, plot_of, sizes, step_of
from dmlray.reporting.picture import picture
from tests.reporting.test_run_report import CURVE, scores

HEAD = 30  # pixels above the plot


def shown(image: Image.Image, colour: str) -> np.ndarray:
    """Where the picture has this colour, in pixels (y, x) of the plot."""
    near = np.abs(np.asarray(image).astype(int) - ImageColor.getrgb(colour)).max(2) < 12
    return np.argwhere(near) / 2 - (HEAD, 0)


@pytest.mark.parametrize("name", COLOURS)
def test_a_line_goes_through_its_values(name: str) -> None:
    plot, places = plot_of(scores()), shown(picture("run", scores()), COLOURS[name])
    for size, metrics in enumerate(CURVE, 1):
        value = (plot.y.at(metrics[name]), plot.x.at(size))
        assert np.abs(places - value).max(1).min() < 1
    halfway = (plot.y.at(sum(metrics[name] for metrics in CURVE) / 2), plot.x.at(1.5))
    assert np.abs(places - halfway).max(1).min() < 1


def test_zero_shot_is_dashed_at_its_height_where_it_is_known() -> None:
    known, colour = scores(zero_shot={"recall_at_1": 0.625}), COLOURS["recall_at_1"]
    plot, column = plot_of(known), 100 + np.arange(40)

    def drawn(image: Image.Image) -> int:
        places = shown(image, colour)
        at_height = places[np.abs(places[:, 0] - plot.y.at(0.625)) < 1]
        return len(np.intersect1d(at_height[:, 1], column))

    assert 15 <= drawn(picture("run", known)) <= 25  # half of 40 pixels
    assert drawn(picture("run", scores())) == 0


@pytest.mark.parametrize("values", [(0.5, 0.5), (0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.87, 0.8703)])
def test_the_axis_holds_all_values_and_stays_readable(values: tuple[float, float]) -> None:
    plot = plot_of(scores(curve=[{**CURVE[0], "map_at_r": v, "recall_at_1": v} for v in values]))
    assert plot.y.low <= min(values) and max(values) <= plot.y.high
    assert 2 <= len(plot.y.ticks) <= 9
    assert all(TOP <= plot.y.at(value) <= BOTTOM for value in values)


@pytest.mark.parametrize("size", [2, 3, 7, 48, 64, 1000])
def test_sizes_on_the_axis_are_whole_rise_and_have_both_ends(size: int) -> None:
    told = sizes(size)
    assert (told[0], told[-1]) == (1, size) and len(told) <= 8
    assert list(told) == sorted(set(map(int, told)))


def test_steps_are_round() -> None:
    assert [step_of(span) for span in (0.5, 0.6, 0.61, 1, 6, 48)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.2, 1, 10]
    )


def test_long_names_and_remarks_stay_inside_the_picture() -> None:
    image = picture("run " * 40, scores(method="a + b + c", remarks=["word " * 100, "x" * 300]))
    pixels = np.asarray(image)
    assert (pixels[:, -6:] == 255).all() and (pixels[-10:] == 255).all()
    assert image.height > picture("run", scores()).height
