"""One self-contained page of an ensemble: its protocol, its scores and their curve over sizes."""

from collections.abc import Sequence
from html import escape

from dmlray.learn.scores import Scores, percent
from dmlray.plans.folder import RunFolder
from dmlray.reporting.tables import COLUMNS, protocol
from dmlray.reporting.tensorboard import TensorBoard
from dmlray.storage import write_text

_WIDTH, _HEIGHT, _MARGIN = 640, 360, 44  # pixels
_COLOURS = {"recall_at_1": "#0b6e99", "r_precision": "#b26b00", "map_at_r": "#7a3e9d"}
_STYLE = (
    "body{font:15px system-ui,sans-serif;max-width:48em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:right}"
    "tr:nth-child(even){background:#f3f3f3}svg{max-width:100%}"
)


def write_ensemble(folder: RunFolder, scores: Scores) -> None:
    """Write TensorBoard's curve, the page, and, when all is there, the scores."""
    board = TensorBoard(folder.path)
    for size, metrics in enumerate(scores.curve, 1):
        board.epoch(size, {f"ensemble/{name}": value for name, value in metrics.items()})
    board.close()
    write_text(folder.report, page(folder.path.name, scores))
    scores.write(folder.scores)


def page(title: str, scores: Scores) -> str:
    """The page as HTML; it loads nothing."""
    sizes: list[object] = list(range(1, len(scores.curve) + 1)) or ["all"]
    rows = zip(sizes, scores.curve or [scores.metrics], strict=True)
    names = [name for name in COLUMNS if name in scores.metrics]
    head = "".join(f"<th>{escape(COLUMNS[name])}</th>" for name in names)
    body = "".join(
        f"<tr><td>{size}</td>"
        + "".join(f"<td>{percent(metrics, name)}</td>" for name in names)
        + "</tr>"
        for size, metrics in rows
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>{escape(scores.method)} on {escape(scores.dataset)}: {scores.test_classes} classes "
        f"never seen in training, %.</p><p>{escape(protocol(scores))}</p>"
        f"{_curve(scores.curve) if len(scores.curve) > 1 else ''}"
        f"<table><tr><th>members</th>{head}</tr>{body}</table></html>\n"
    )


def _curve(curve: Sequence[dict[str, float]]) -> str:
    """Scores over ensemble sizes, as inline SVG."""
    names = [name for name in _COLOURS if name in curve[0]]
    lines = "".join(_line(name, [metrics[name] for metrics in curve]) for name in names)
    grid = "".join(
        f'<path d="M{_MARGIN} {_y(level):.1f}H{_WIDTH - 8}" stroke="#ddd"/>'
        f'<text x="{_MARGIN - 6}" y="{_y(level) + 4:.1f}" text-anchor="end">{level:.0%}</text>'
        for level in (0, 0.25, 0.5, 0.75, 1)
    )
    ends = "".join(
        f'<text x="{_x(size - 1, len(curve)):.1f}" y="{_HEIGHT - 22}" text-anchor="middle">{size}'
        "</text>"
        for size in (1, len(curve))
    )
    middle = f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 6}" text-anchor="middle">members merged</text>'
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" font-size="12" role="img" '
        f'aria-label="scores over ensemble size">{grid}{lines}{ends}{middle}</svg>'
    )


def _line(name: str, values: Sequence[float]) -> str:
    points = " ".join(f"{_x(i, len(values)):.1f},{_y(value):.1f}" for i, value in enumerate(values))
    colour = _COLOURS[name]
    # The label of MAP@R stands below its curve: R-Precision lies just above it.
    height = _y(values[-1]) + (16 if name == "map_at_r" else -6)
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        f'<text x="{_WIDTH - 8}" y="{height:.1f}" text-anchor="end" fill="{colour}">'
        f"{escape(COLUMNS[name])} {values[-1]:.1%}</text>"
    )


def _x(index: int, count: int) -> float:
    return _MARGIN + (_WIDTH - _MARGIN - 8) * index / max(1, count - 1)


def _y(value: float) -> float:
    return 12 + (_HEIGHT - 56) * (1 - value)
