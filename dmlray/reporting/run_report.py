"""One self-contained page of an ensemble: its protocol, its scores and their curve over sizes."""

import html

from dmlray.atomic_files import write_json, write_text
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import printable
from dmlray.reporting.curve import (
    BOTTOM,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    ZERO_SHOT,
    Line,
    Plot,
    document,
    plot_of,
)
from dmlray.reporting.picture import picture, write_picture
from dmlray.reporting.tables import COLUMNS
from dmlray.reporting.tensorboard import TensorBoard
from dmlray.scores import Scores, percent, protocol_line

_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:48em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right}"
    "tr:nth-child(even){background:#f3f3f3}svg{max-width:100%}"
)


def write_ensemble(folder: RunFolder, scores: Scores) -> None:
    """Write the curve in all its forms, the page, and, when all is there, the scores.

    dmlray itself reads the scores alone.
    """
    folder.make()
    board = TensorBoard(folder.path)
    for size, metrics in enumerate(scores.curve, 1):
        board.epoch(size, {f"ensemble/{name}": value for name, value in metrics.items()})
    if scores.curve:
        write_json(folder.curve, document(scores))
    if len(scores.curve) > 1:
        image = picture(folder.path.name, scores)
        write_picture(folder.curve_picture, image)
        board.image("ensemble/curve", image)
    board.close()
    write_text(folder.report, page(folder.path.name, scores))
    scores.write(folder.scores)


def page(title: str, scores: Scores) -> str:
    """The page as HTML; it loads nothing."""
    sizes: list[object] = list(range(1, len(scores.curve) + 1)) or ["all"]
    rows = zip(sizes, scores.curve or [scores.metrics], strict=True)
    names = [name for name in COLUMNS if name in scores.metrics]
    head = "".join(f"<th>{_text(COLUMNS[name])}</th>" for name in names)
    body = "".join(
        f"<tr><td>{size}</td>"
        + "".join(f"<td>{percent(metrics, name)}</td>" for name in names)
        + "</tr>"
        for size, metrics in rows
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title>'
        f"<style>{_STYLE}</style><h1>{_text(title)}</h1>"
        f"<p>{_text(scores.method)} on {_text(scores.dataset)}: {scores.test_classes} classes "
        f"never seen in training, %.</p><p>{_text(protocol_line(scores))}</p>"
        f"{_curve(scores) if len(scores.curve) > 1 else ''}"
        f"<table><tr><th>members</th>{head}</tr>{body}</table></html>\n"
    )


def _curve(scores: Scores) -> str:
    """Scores over ensemble sizes, as inline SVG."""
    plot = plot_of(scores)
    grid = "".join(
        f'<path d="M{LEFT} {plot.y.at(level):.1f}H{RIGHT}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{plot.y.at(level) + 4:.1f}" text-anchor="end">{100 * level:g}'
        "</text>"
        for level in plot.y.ticks
    )
    sizes = "".join(
        f'<text x="{plot.x.at(size):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{size:g}</text>'
        for size in plot.x.ticks
    )
    lines = "".join(_line(plot, line, 160 * place) for place, line in enumerate(plot.lines))
    middle = f'<text x="{WIDTH // 2}" y="{HEIGHT - 6}" text-anchor="middle">members merged</text>'
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" font-size="12" role="img" '
        f'aria-label="scores over ensemble size">{grid}{lines}{sizes}{middle}</svg>'
    )


def _line(plot: Plot, line: Line, legend: float) -> str:
    """A line, its place in the legend, and dashes where the features were before training."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in plot.points(line))
    drawn = (
        f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2"/>'
        f'<text x="{LEFT + legend}" y="16" fill="{line.colour}">{_text(line.label)}</text>'
    )
    if line.zero_shot is None:
        return drawn
    y = plot.y.at(line.zero_shot)
    return drawn + (
        f'<path d="M{LEFT} {y:.1f}H{RIGHT}" stroke="{line.colour}" stroke-dasharray="5"/>'
        f'<text x="{RIGHT}" y="{y - 4:.1f}" text-anchor="end" fill="{line.colour}">{ZERO_SHOT}'
        "</text>"
    )


def _text(text: str) -> str:
    """Text of a page: nothing in it is markup or a control character."""
    return html.escape(printable(text))
