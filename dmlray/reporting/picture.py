"""The curve of an ensemble as a picture, drawn with Pillow alone."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dmlray.atomic_files import whole_file
from dmlray.printable import printable
from dmlray.reporting.curve import BOTTOM, HEIGHT, LEFT, RIGHT, WIDTH, ZERO_SHOT, Plot, plot_of
from dmlray.scores import Scores, protocol_line

_SCALE = 2  # pixels of the picture for one of the plot
_FINE = 2 * _SCALE  # pixels drawn for one of the plot: Pillow's lines are jagged
_HEAD, _FOOT_LINE, _FOOT_WIDTH = 30, 14, 110  # pixels, pixels, letters
_DASH = 5.0  # pixels
_INK, _GREY, _GRID = "#222222", "#666666", "#dddddd"


def write_picture(path: Path, image: Image.Image) -> None:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as temporary:
        image.save(temporary, format="PNG")


def picture(title: str, scores: Scores) -> Image.Image:
    """Scores over ensemble sizes, below a title and above the protocol."""
    foot = textwrap.wrap(protocol_line(scores), _FOOT_WIDTH)
    height = _HEAD + HEIGHT + _FOOT_LINE * len(foot) + 10
    image = Image.new("RGB", (WIDTH * _FINE, height * _FINE), "white")
    pen = _Pen(image)
    subject = printable(
        f"{title}: {scores.method} on {scores.dataset}, {scores.test_classes} unseen classes"
    )
    size = min(14, 14 * (RIGHT - LEFT) / pen.width(subject, 14))
    pen.text((LEFT, 16 - _HEAD), subject, _INK, "lm", size)
    plot = plot_of(scores)
    _axes(pen, plot)
    for line in plot.lines:
        if line.zero_shot is not None:
            pen.dashed(LEFT, RIGHT, plot.y.at(line.zero_shot), line.colour)
        pen.line(plot.points(line), line.colour, 2.2)
        for point in plot.points(line) if len(line.values) <= 60 else ():
            pen.dot(point, line.colour)
    _legend(pen, plot)
    for number, text in enumerate(foot):
        pen.text((LEFT, HEIGHT + 4 + _FOOT_LINE * number), text, _GREY, "lm", 10)
    return image.reduce(_FINE // _SCALE)


def _axes(pen: "_Pen", plot: Plot) -> None:
    for level in plot.y.ticks:
        y = plot.y.at(level)
        pen.line([(LEFT, y), (RIGHT, y)], _GRID, 1)
        pen.text((LEFT - 6, y), f"{100 * level:g}", _GREY, "rm")
    for size in plot.x.ticks:
        x = plot.x.at(size)
        pen.line([(x, BOTTOM), (x, BOTTOM + 4)], _GREY, 1)
        pen.text((x, BOTTOM + 13), f"{size:g}", _GREY, "mm")
    pen.line([(LEFT, BOTTOM), (RIGHT, BOTTOM)], _GREY, 1)
    pen.text(((LEFT + RIGHT) / 2, BOTTOM + 31), "members merged", _INK, "mm")
    pen.text((LEFT - 6, 12), "%", _INK, "rm")


def _legend(pen: "_Pen", plot: Plot) -> None:
    x = float(LEFT)
    for line in plot.lines:
        pen.line([(x, 12), (x + 22, 12)], line.colour, 2.2)
        x = pen.text((x + 28, 12), line.label, line.colour, "lm") + 24
    if any(line.zero_shot is not None for line in plot.lines):
        pen.dashed(x, x + 25, 12, _GREY)
        pen.text((x + 31, 12), ZERO_SHOT, _GREY, "lm")


class _Pen:
    """Draws in the plot's pixels, whose origin lies below the head."""

    def __init__(self, image: Image.Image) -> None:
        self._draw = ImageDraw.Draw(image)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float) -> None:
        places = [self._place(point) for point in points]
        self._draw.line(places, colour, round(width * _FINE), joint="curve")

    def dashed(self, start: float, end: float, y: float, colour: str) -> None:
        while start < end:
            self.line([(start, y), (min(start + _DASH, end), y)], colour, 1.2)
            start += 2 * _DASH

    def dot(self, point: tuple[float, float], colour: str) -> None:
        self._draw.circle(self._place(point), 2.6 * _FINE, colour)

    def text(
        self, point: tuple[float, float], text: str, colour: str, anchor: str, size: float = 12
    ) -> float:
        """Write, and say where it ends."""
        font = ImageFont.load_default(size * _FINE)
        self._draw.text(self._place(point), text, colour, font, anchor)
        return point[0] + self.width(text, size)

    def width(self, text: str, size: float) -> float:
        return self._draw.textlength(text, ImageFont.load_default(size * _FINE)) / _FINE

    @staticmethod
    def _place(point: tuple[float, float]) -> tuple[float, float]:
        return point[0] * _FINE, (point[1] + _HEAD) * _FINE
