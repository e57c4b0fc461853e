"""Scores as a person reads them: percent, with the protocol below."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dmlray.evaluation.metrics import label, tabled
from dmlray.printable import printable, wrapped
from dmlray.scores import NO_TEST_CLASSES, ScorePart, Scores, percent, protocol_line


def print_table(
    rows: Sequence[tuple[str, Mapping[str, float]]], scores: Scores, console: Console | None = None
) -> None:
    """One row per stage; `scores` has their protocol.

    Where the terminal is too narrow for the table, each number has a line of its own.
    """
    console = console or Console(highlight=False)
    seen = "of other data" if scores.trained_on else "never seen in training"
    tested = f"{scores.test_classes} classes {seen}, %"
    title = printable(f"{scores.dataset}: {tested if scores.test_classes else NO_TEST_CLASSES}")
    columns = tabled(name for _, metrics in rows for name in metrics)
    table = Table(title=Text(title))
    table.add_column("")
    for column in columns:
        table.add_column(label(column), justify="right")
    for name, metrics in rows:
        table.add_row(Text(printable(name)), *(percent(metrics, column) for column in columns))
    unlimited = console.options.update(max_width=10_000)
    if Measurement.get(console, unlimited, table).maximum <= console.width:
        console.print(table)
        line = protocol_line(scores)
        for part in wrapped(line, console.width) if console.is_terminal else [line]:
            console.print(Text(part), soft_wrap=True)
        return
    lines = [title]
    for name, metrics in rows:
        lines += [name, *(f"  {label(key)} {percent(metrics, key)}" for key in columns)]
    for line in (*lines, protocol_line(scores)):
        for part in wrapped(line, console.width):
            console.print(Text(part), soft_wrap=True)


def average_rows(scores: Scores) -> list[tuple[str, dict[str, float]]]:
    """Each part, the mean over them, how sure it is, and what lies beside it."""
    rows = [("zero-shot (no training)", scores.zero_shot)] if scores.zero_shot else []
    rows += [(name, part.metrics) for name, part in _named(scores)]
    separated = "separated: " if scores.concatenated else ""
    rows.append((f"{separated}mean of {scores.n}", scores.metrics))
    if scores.half_width:
        rows.append(("95 % half-width", scores.half_width))
    if scores.concatenated:
        rows.append(("concatenated", scores.concatenated))
    return rows


def score_rows(scores: Scores) -> list[tuple[str, dict[str, float]]]:
    """Every number of a run: each ensemble size, each part and the mean, or the one training."""
    if scores.parts:
        return average_rows(scores)
    rows = [("zero-shot (no training)", scores.zero_shot)] if scores.zero_shot else []
    if not scores.curve:
        return [*rows, (scores.method, scores.metrics)]
    return [*rows, *((f"{size} merged", metrics) for size, metrics in enumerate(scores.curve, 1))]


def held_out_lines(scores: Scores) -> list[str]:
    """How each part that held out training classes did on them, and at which epoch."""
    return [
        f"{name}, on the training classes it held out, epoch {part.epoch}: "
        + ", ".join(f"{label(key)} {percent(part.validation, key)}" for key in shown)
        for name, part in _named(scores)
        if (shown := tabled(part.validation))
    ]


def _named(scores: Scores) -> list[tuple[str, ScorePart]]:
    folds = bool(scores.concatenated)
    return [
        (f"fold {number}" if folds else f"seed {part.seed}", part)
        for number, part in enumerate(scores.parts)
    ]
