"""One table as text, Markdown, LaTeX and CSV: aligned, and with nothing of a name as markup."""

import csv
from io import StringIO

from dmlray.reporting.sections import Section, as_csv, as_latex, as_markdown, as_text

NAMES = ["a_b|c", "100 % & <b>"]
PART = Section(
    title="Protocol 1: demo",
    head=["rank", "run", "method", "Recall@1"],
    rows=[["1", NAMES[0], "drml", "91.5 ± 0.4"], ["2", NAMES[1], "idml", "9.0"]],
    lines=["not tested *here*"],
)


def test_text_is_aligned_numbers_to_the_right() -> None:
    title, *rows, line = as_text([PART]).splitlines()
    assert (title, line) == (PART.title, PART.lines[0])
    assert len({row.index(name) for row, name in zip(rows, ["run", *NAMES], strict=True)}) == 1
    assert {len(row) for row in rows} == {len(rows[0])}
    assert rows[-1].endswith(" 9.0")


def test_markdown_escapes_names() -> None:
    text = as_markdown([PART])
    assert "| 1 | a\\_b\\|c | drml | 91.5 ± 0.4 |" in text
    assert "100 % &amp; &lt;b&gt;" in text
    assert "| ---: | --- | --- | ---: |" in text
    assert "- not tested \\*here\\*" in text


def test_latex_escapes_names_and_has_a_column_for_each() -> None:
    text = as_latex([PART])
    assert r"\begin{tabular}{rllr}" in text
    assert r"1 & a\_b|c & drml & 91.5 $\pm$ 0.4 \\" in text
    assert r"2 & 100 \% \& <b> & idml & 9.0 \\" in text
    assert "% not tested *here*" in text


def test_csv_has_the_columns_of_all_records() -> None:
    records = [{"run": 'a,"b"', "value": 0.5}, {"run": "c", "p": 0.01}]
    rows = list(csv.DictReader(StringIO(as_csv(records))))
    assert rows == [
        {"run": 'a,"b"', "value": "0.5", "p": ""},
        {"run": "c", "value": "", "p": "0.01"},
    ]
