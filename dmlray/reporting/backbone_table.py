"""A comparison of frozen backbones as a table, with what its scores depend on below."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dmlray.evaluation.metrics import label
from dmlray.printable import printable, wrapped
from dmlray.results.backbone_comparison import BackboneComparison, BackboneRow, IntervalScore
from dmlray.scores import NO_TEST_CLASSES


def print_backbones(comparison: BackboneComparison, console: Console | None = None) -> None:
    """One row per backbone, in the order given; scores in percent with their intervals."""
    console = console or Console(highlight=False)
    table = Table(title=Text(printable(f"{comparison.dataset}: frozen backbones, %")))
    columns = _columns(comparison)
    for number, name in enumerate(("backbone", "pooling", "size", "ms/image", *columns)):
        table.add_column(Text(name), justify="left" if number < 2 else "right")
    rows = [(row, _cells(comparison, row)) for row in comparison.rows]
    for row, cells in rows:
        speed = f"{row.milliseconds:.1f}"
        head = (printable(row.backbone), row.pooling, str(row.embedding_size), speed)
        table.add_row(*map(Text, (*head, *cells)))
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= (
        console.width
    ):
        console.print(table)
    else:
        _print_lines(console, columns, rows)
    for line in protocol_lines(comparison):
        console.print(Text(line), soft_wrap=True)


def protocol_lines(comparison: BackboneComparison) -> list[str]:
    """What the scores depend on, and which backbone is the best on validation."""
    test, held_out, best = comparison.test, comparison.validation, comparison.best
    tested = f"test: {test.images} images of {test.classes} classes"
    return [
        printable(line)
        for line in (
            f"validation: {held_out.images} images of {held_out.classes} classes "
            f"({held_out.which}); {tested if test.classes else NO_TEST_CLASSES}",
            f"nothing was trained; in parentheses the interval ({comparison.interval}); ms/image: "
            f"the network alone, in a batch, on {best.device}",
            f"best {label(comparison.metric)} on validation: {best.backbone}, {best.pooling} "
            f"pooling; fingerprint of the images {comparison.dataset_fingerprint}",
        )
    ]


def _columns(comparison: BackboneComparison) -> list[str]:
    sides = ("validation", *(["test"] if comparison.test.classes else []))
    return [f"{side} {label(name)}" for side in sides for name in _shown(comparison)]


def _shown(comparison: BackboneComparison) -> list[str]:
    """Recall@1 and the metric that chooses."""
    known = comparison.rows[0].validation
    return [name for name in dict.fromkeys(("recall_at_1", comparison.metric)) if name in known]


def _cells(comparison: BackboneComparison, row: BackboneRow) -> list[str]:
    sides: list[Mapping[str, IntervalScore]] = [row.validation]
    sides += [row.test] if comparison.test.classes else []
    return [_cell(side.get(name)) for side in sides for name in _shown(comparison)]


def _cell(score: IntervalScore | None) -> str:
    if score is None:
        return "-"
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f}-{100 * score.high:.1f})"


def _print_lines(
    console: Console, columns: list[str], rows: list[tuple[BackboneRow, list[str]]]
) -> None:
    """Each number in a line of its own, for a narrow terminal."""
    for row, cells in rows:
        head = f"{row.backbone}, {row.pooling}, {row.embedding_size}-d, {row.milliseconds:.1f} ms"
        lines = [f"{name} {cell}" for name, cell in zip(columns, cells, strict=True)]
        for line in (printable(head), *(f"  {line}" for line in lines)):
            for part in wrapped(line, console.width):
                console.print(Text(part), soft_wrap=True)
