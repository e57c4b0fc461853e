"""Print scores and where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dmlray.cli.output import echo
from dmlray.cli.parameters import typed

if TYPE_CHECKING:
    from dmlray.plans.run_folder import RunFolder
    from dmlray.scores import Scores


def stage_rows(scores: Scores, name: str) -> list[tuple[str, dict[str, float]]]:
    """Return the rows of a run's scores by name; the first is zero-shot, if it was measured."""
    zero = [("zero-shot (no training)", scores.zero_shot)] if scores.zero_shot else []
    return [*zero, (name, scores.metrics)]


def curve_rows(scores: Scores) -> list[tuple[str, dict[str, float]]]:
    """The ensemble at 1, 2, 4, 8, ... members, and at its full size."""
    full = len(scores.curve)
    sizes = [2**power for power in range(full.bit_length()) if 2**power < full]
    named = [(f"{n} merged" if n > 1 else "one member", scores.curve[n - 1]) for n in sizes]
    return [*named, (f"{full} merged", scores.metrics)]


def print_averages(scores: Scores) -> None:
    """Print averages over several runs, and the scores of held-out classes."""
    from dmlray.reporting.tables import average_rows, held_out_lines

    print_scores(average_rows(scores), scores)
    for line in held_out_lines(scores):
        echo(line)


def print_scores(rows: list[tuple[str, dict[str, float]]], scores: Scores) -> None:
    """Print rows of scores as a table, then their protocol and remarks."""
    from dmlray.reporting.tables import print_table

    print_table(rows, scores)


def print_folder(folder: RunFolder) -> None:
    """Print where a run is, and the command that shows it in TensorBoard."""
    echo(f"run folder:   {folder}")
    echo(f"TensorBoard:  tensorboard --logdir {typed(str(folder))}")
