"""Critical-difference diagram: mean ranks on an axis, methods that do not differ connected.

Source: Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 2006.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dmlray.printable import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _DPI = 6.4, 200  # inches, pixels per inch
_LINE = 0.22  # inches of a method's line
_COLOUR, _GREY = "#0b6e99", "#666666"


def groups(ranks: Sequence[float], difference: float) -> list[tuple[int, int]]:
    """Return the longest runs of sorted mean ranks that differ by less than `difference`.

    Returns:
        (first, last) positions of each run of two or more; no run lies inside another.
    """
    found: list[tuple[int, int]] = []
    for first, low in enumerate(ranks):
        last = max(i for i, rank in enumerate(ranks) if rank - low < difference or i == first)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def critical_difference_figure(mean_ranks: Mapping[str, float], difference: float) -> "Figure":
    """Draw the mean ranks, best on the left, and the critical difference above the axis."""
    from matplotlib.figure import Figure

    names, ranks = list(mean_ranks), list(mean_ranks.values())
    connected = groups(ranks, difference)
    half = -(-len(names) // 2)
    height = (half + len(connected) + 3) * _LINE
    figure = Figure((_WIDTH, height), _DPI, facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlim(1, max(len(names), 2))
    axes.set_ylim(-(half + len(connected) + 1), 2)
    axes.xaxis.tick_top()
    axes.yaxis.set_visible(False)
    axes.spines[["left", "right", "bottom"]].set_visible(False)
    end = min(1 + difference, max(len(names), 2))
    axes.plot([1, end], [1, 1], c=_GREY, lw=2, clip_on=False)
    axes.text(1, 1.2, f"critical difference {difference:.2f}", fontsize=7, color=_GREY)
    for number, (first, last) in enumerate(connected):
        axes.plot([ranks[first], ranks[last]], [-number - 0.6] * 2, c="#222222", lw=3)
    for position, (name, rank) in enumerate(zip(names, ranks, strict=True)):
        _method(axes, printable(name), rank, position, half, len(connected), len(names))
    return figure


def _method(  # one line of the diagram
    axes: "Axes", name: str, rank: float, position: int, half: int, top: int, count: int
) -> None:
    """Draw the line from a mean rank to its method, on the side that is nearer."""
    left = position < half
    row = position if left else count - 1 - position
    height, edge = -(top + row + 1), 1 if left else max(count, 2)
    axes.plot([rank, rank, edge], [0, height, height], c=_COLOUR, lw=1, clip_on=False)
    axes.text(
        edge, height, f" {name} {rank:.2f} ", ha="right" if left else "left", va="center",
        fontsize=8, parse_math=False,
    )  # fmt: skip
