"""A comparison in each format: the same numbers, and every test with what it is a test of."""

import csv
import re
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest

from dmlray.evaluation.significance import Difference
from dmlray.methods import Published
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.comparison_records import comparison_records
from dmlray.reporting.comparison_tables import FORMATS, sections
from dmlray.results.comparison import Comparison, Group, PublishedRow
from dmlray.results.paired_tests import ComparedRun
from dmlray.results.paired_tests import TestedPair as Pair  # pytest collects what begins with Test
from tests.reporting.test_run_report import Reader, scores


def run(name: str, value: float, **changes: object) -> ComparedRun:
    found = scores(**changes)
    metrics = {**found.metrics, "map_at_r": value}
    return ComparedRun(RunFolder(Path(name)), replace(found, metrics=metrics))


FIRST, SECOND = run("one", 0.5), run("two", 0.4)
THIRD = run("three", 0.45, n=3, half_width={"map_at_r": 0.0123, "recall_at_1": 0.01})
FOUND = Difference(0.1, -0.02, 0.22, 0.03, 12)
PAIR = Pair(FIRST, SECOND, FOUND, "test class", 0.06)
UNTESTED = Pair(FIRST, SECOND, reason="0 common seeds")
PUBLISHED = PublishedRow(
    FIRST,
    Published({}, scores={"recall_at_1": 0.691}, source="Table 2"),
    ["settings data.batch_size", "epochs"],
)
COMPARED = Comparison(
    "map_at_r",
    [
        Group(FIRST.protocol, [FIRST, SECOND], [PAIR, UNTESTED]),
        Group(THIRD.protocol, [THIRD], []),
    ],
    [PUBLISHED],
)


def with_pair(pair: Pair) -> list[str]:
    (part,) = sections(Comparison("map_at_r", [Group(FIRST.protocol, [FIRST], [pair])], None))
    return part.lines


def test_there_is_a_section_for_each_protocol_and_for_published_scores() -> None:
    one, other, published = sections(COMPARED)
    assert one.title.startswith("Protocol 1: demo f; training classes s; selection last")
    assert one.rows == [
        ["1", "one", "dreml", "75.0", "30.0", "50.0"], ["2", "two", "dreml", "75.0", "30.0", "40.0"]
    ]  # fmt: skip
    assert other.rows[0][-1] == "45.0 ± 1.2"
    assert other.lines == ["not ranked with protocol 1: n 3, not 1"]
    assert published.rows == [["-", "published, for one", "dreml", "69.1"]]
    assert published.lines == ["one: Table 2. Differs: settings data.batch_size; epochs"]


def test_a_difference_has_its_interval_its_p_and_what_it_is_over() -> None:
    line, *notes = with_pair(PAIR)
    assert line == (
        "one - two: MAP@R +10.0 (95 % interval -2.0 to +22.0), p = 0.06, 12 pairs by test class: "
        "not significant"
    )
    assert any("bootstrap over classes, 10,000 resamples" in note for note in notes)
    assert "fewer than 20 test classes: intervals are likely too narrow" in notes
    assert "p is Holm-corrected for all tests here; each interval stands alone" in notes


def test_notes_are_those_of_the_tests_made() -> None:
    many = with_pair(replace(PAIR, difference=replace(FOUND, pairs=20)))
    assert not any("fewer than" in line for line in many)
    seeds = with_pair(replace(PAIR, paired_by="seed", corrected=0.049))
    assert seeds[0].endswith("12 pairs by seed: significant")
    assert seeds[1].startswith("paired by seed: Student's t test")
    assert not any("bootstrap" in line for line in seeds)
    assert with_pair(UNTESTED) == ["one - two: not tested (0 common seeds)"]


def test_the_metric_of_the_ranking_is_always_a_column() -> None:
    ranked = replace(COMPARED, metric="precision_at_7")
    runs = [replace(FIRST, scores=replace(FIRST.scores, metrics={"precision_at_7": 0.25}))]
    (part,) = sections(replace(ranked, groups=[Group(FIRST.protocol, runs, [])], published=None))
    assert "Precision@7" in part.head
    assert part.rows[0][part.head.index("Precision@7")] == "25.0"


def test_no_published_scores_are_said_to_be_none() -> None:
    *_, published = sections(replace(COMPARED, published=[]))
    assert (published.rows, published.lines) == (
        [], ["none for these methods on these data sets"]
    )  # fmt: skip


def test_records_have_fractions_and_the_reason_of_a_missing_test() -> None:
    records = list(comparison_records(COMPARED))
    assert [row["row"] for row in records] == [
        "run", "run", "difference", "difference", "run", "published"
    ]  # fmt: skip
    first, _, tested, untested, third, published = records
    assert (first["group"], first["rank"], first["map_at_r"], first["n"]) == (1, 1, 0.5, "1")
    assert third["map_at_r_half_width"] == 0.0123
    found: Mapping[str, object] = {
        "run": "one", "than": "two", "metric": "map_at_r", "difference": 0.1, "low": -0.02,
        "high": 0.22, "p": 0.03, "p_holm": 0.06, "paired_by": "test class", "pairs": 12,
        "significant": "not significant",
    }  # fmt: skip
    assert {key: tested[key] for key in found} == found
    assert untested["remark"] == "not tested: 0 common seeds"
    assert (published["recall_at_1"], published["remark"]) == (
        0.691, "Table 2; settings data.batch_size; epochs"
    )  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_has_the_same_scores(format: str) -> None:
    text = FORMATS[format](COMPARED)
    shown = ("0.5", "0.4", "0.45", "0.691") if format == "csv" else ("50.0", "40.0", "45.0", "69.1")
    for number in shown:
        assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d])", text), number
    if format == "csv":
        assert len(list(csv.DictReader(StringIO(text)))) == 6
    if format == "html":
        rows = Reader(text).rows
        assert ["1", "one", "dreml", "75.0", "30.0", "50.0"] in rows
        assert "<title>Comparison of 3 runs</title>" in text
