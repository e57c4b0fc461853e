"""Frozen backbones as a table: every score with its interval, at any width of a terminal."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from dmlray.reporting.backbone_table import print_backbones, protocol_lines
from dmlray.results.backbone_comparison import (
    BackboneComparison,
    BackboneRow,
    IntervalScore,
    ScoredClasses,
)

ONE = IntervalScore(0.5, 0.4512, 0.5497)
ROW = BackboneRow(
    run="a", backbone="timm/vit", pooling="cls", embedding_size=384, milliseconds=1.25,
    device="cpu", validation={"recall_at_1": ONE, "map_at_r": ONE, "r_precision": ONE},
    test={"recall_at_1": ONE, "map_at_r": IntervalScore(0.3, None, None)}, protocol="",
)  # fmt: skip
BETTER = replace(
    ROW, backbone="b\x1b[31m", validation={**ROW.validation, "map_at_r": replace(ONE, value=0.6)}
)
COMPARED = BackboneComparison(
    dataset="birds", dataset_fingerprint="f00", metric="map_at_r",
    validation=ScoredClasses("fold 0 of 3", 2, 16), test=ScoredClasses("", 6, 48),
    rows=[ROW, BETTER],
)  # fmt: skip


def printed(comparison: BackboneComparison, width: int) -> str:
    text = StringIO()
    print_backbones(comparison, Console(file=text, width=width, highlight=False))
    return text.getvalue()


def test_a_row_has_each_score_with_its_interval() -> None:
    text = printed(COMPARED, 200)
    (line,) = (line for line in text.splitlines() if "timm/vit" in line and "│" in line)
    cells = [cell.strip() for cell in line.split("│")[1:-1]]
    assert cells == [
        "timm/vit", "cls", "384", "1.2", *["50.0 (45.1-55.0)"] * 3, "30.0",
    ]  # fmt: skip
    assert "test MAP@R" in text
    assert "R-Precision" not in text  # it does not choose


@pytest.mark.parametrize("width", [30, 50, 80])
def test_a_narrow_terminal_gets_every_number_in_a_line_of_its_own(width: int) -> None:
    text = printed(COMPARED, width).split("validation: 16 images")[0]
    assert "│" not in text
    assert all(len(line) <= width for line in text.splitlines())
    words = " ".join(text.split())
    for part in ("validation Recall@1 50.0 (45.1-55.0)", "test MAP@R 30.0", "384-d, 1.2 ms"):
        assert words.count(part) == 2


def test_without_test_classes_there_are_no_columns_for_them() -> None:
    rows = [replace(row, test={}) for row in COMPARED.rows]
    alone = replace(COMPARED, rows=rows, test=ScoredClasses("", 0, 0))
    text = printed(alone, 200)
    assert "test MAP@R" not in text
    assert "no test classes" in protocol_lines(alone)[0]


def test_the_lines_below_say_what_was_scored_and_name_the_best() -> None:
    held_out, how, best = protocol_lines(COMPARED)
    assert held_out == (
        "validation: 16 images of 2 classes (fold 0 of 3); test: 48 images of 6 classes"
    )
    assert "nothing was trained" in how
    assert "95 %" in how
    assert "on cpu" in how
    assert best.startswith(r"best MAP@R on validation: b\x1b[31m, cls pooling")
    assert "f00" in best


def test_names_cannot_colour_the_terminal() -> None:
    for width in (40, 200):
        assert "\x1b" not in printed(replace(COMPARED, dataset="\x1b[2J"), width)
