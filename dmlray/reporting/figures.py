"""Figures, drawn by matplotlib without pyplot: no display, no global state, usable in any thread.

matplotlib takes half a second to import: the functions here import it, the module does not.
"""

import textwrap
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dmlray.atomic_files import whole_file
from dmlray.evaluation.metrics import is_known, label
from dmlray.evaluation.verification import AUTO, BEST_F1, Verification
from dmlray.printable import printable
from dmlray.scores import Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"recall_at_1": "#0b6e99", "map_at_r": "#7a3e9d"}
_WIDTH, _HEIGHT, _DPI = 5.6, 3.2, 200  # inches, inches, pixels per inch
_TITLE, _CAPTION = (9.0, 66), (6.5, 95)  # points of the font, characters per line
_GREY, _GRID = "#666666", "#dddddd"
_STEPS = (1, 2, 5, 10)  # between ticks, times a power of ten
_MOST_MARKERS = 60


def ensemble_curve(scores: Scores) -> "Figure":
    """Draw the metrics over the ensemble size, of at least two sizes; zero-shot scores dashed."""
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH, _HEIGHT), _DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    shown = [name for name in COLOURS if name in scores.metrics]
    for name in shown:
        values = [metrics[name] for metrics in scores.curve]
        marker = "o" if len(values) <= _MOST_MARKERS else None
        text = f"{label(name)} {values[-1]:.1%}"
        style: dict[str, Any] = {"marker": marker, "ms": 4, "c": COLOURS[name], "clip_on": False}
        axes.plot(range(1, len(values) + 1), values, label=text, **style)
    for name in shown:
        if name in scores.zero_shot:
            axes.axhline(scores.zero_shot[name], ls="--", lw=1, c=COLOURS[name], clip_on=False)
    if any(name in scores.zero_shot for name in shown):
        axes.plot([], ls="--", lw=1, c=_GREY, label="zero-shot")
    _style(axes, len(scores.curve))
    axes.set_xlabel("members merged")
    return figure


def training_curve(lines: Sequence[Mapping[str, float]], names: Sequence[str]) -> "Figure":
    """Draw some metrics of the lines of a metrics log over the epochs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure((_WIDTH, _HEIGHT), _DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    if all(is_known(name) for name in names):
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    for name in names:
        points = [(line["epoch"], line[name]) for line in lines if name in line]
        shown = _drawable(label(name)).replace("$", r"\$")
        marker = "o" if len(points) <= _MOST_MARKERS else None
        axes.plot(*zip(*points, strict=True), marker=marker, ms=3, label=shown)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=_STEPS))
    axes.set_xlabel("epoch")
    axes.grid(axis="y", color=_GRID)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, fontsize=8)
    return figure


def cosine_histograms(verification: Verification) -> "Figure":
    """Draw the shares of positive and negative comparisons by cosine, and the thresholds."""
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH, _HEIGHT), _DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for counts, name, colour in (
        (verification.negative_counts, "different classes", "#c62828"),
        (verification.positive_counts, "one class", "#1a7f37"),
    ):
        shares = np.array(counts) / max(1, sum(counts))
        edges = np.linspace(-1, 1, len(shares) + 1)
        axes.stairs(shares, edges, fill=True, alpha=0.4, color=colour, label=name)
    for name, style in ((AUTO, "-"), (BEST_F1, "--")):
        if name in verification.thresholds:
            shown = "best F1" if name == BEST_F1 else "FMR 0.1 %"
            cosine = verification.thresholds[name].cosine
            axes.axvline(cosine, ls=style, lw=1, c="#222222", label=f"{shown}: {cosine:.3f}")
    axes.set_xlim(-1, 1)
    axes.set_xlabel("cosine")
    axes.set_ylabel("share of comparisons")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, fontsize=8)
    return figure


def add_text(figure: "Figure", title: str, caption: str) -> None:
    """Write a title above and a caption below, broken into lines; the figure grows by them."""
    for text, (points, characters), write in (
        (title, _TITLE, figure.suptitle),
        (caption, _CAPTION, figure.supxlabel),
    ):
        lines = textwrap.wrap(_drawable(text), characters)
        figure.set_figheight(figure.get_figheight() + 1.3 * points / 72 * len(lines))
        # Names are no formulas: neither "$" nor "_" means anything in them.
        plain: dict[str, Any] = {"parse_math": False, "usetex": False}
        write("\n".join(lines), x=0.01, ha="left", fontsize=points, **plain)


def png(figure: "Figure") -> bytes:
    """Encode as PNG, `_DPI` pixels per inch."""
    file = BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def write_png(path: Path, figure: "Figure") -> None:
    """Write a PNG, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_bytes(png(figure))


def pixels(figure: "Figure") -> np.ndarray:
    """Render as uint8 (height, width, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _style(axes: "Axes", size: int) -> None:
    """Whole numbers from 1 to `size` on x, percent within [0, 100] on y, the legend above."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.0))
    sizes = MaxNLocator(8, integer=True, steps=_STEPS).tick_values(1, size)
    axes.set_xticks([1, *(number for number in sizes if 1 < number <= size)])
    axes.set_xlim(1, size)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=_STEPS))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="y", color=_GRID)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_GREY)
    axes.tick_params(color=_GREY, labelcolor=_GREY, left=False)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor="linecolor"
    )


def _drawable(text: str) -> str:
    """Replace what the font has no glyph for by its code: matplotlib would draw empty boxes."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return "".join(
        character if font.get_char_index(ord(character)) else ascii(character)[1:-1]
        for character in printable(text)
    )
