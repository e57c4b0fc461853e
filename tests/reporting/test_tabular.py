"""A result is a table in a notebook, and a data frame."""

from collections.abc import Mapping, Sequence
from typing import Any

from dmlray.reporting.tabular import Tabular


class Found(Tabular):
    def __init__(self, *rows: Mapping[str, Any]) -> None:
        self._rows = rows

    def records(self) -> Sequence[Mapping[str, Any]]:
        return self._rows

    def remarks(self) -> Sequence[str]:
        return ["n = 1 & no interval"]


ROWS = [{"run": "<script>\x1b", "score": 1 / 3}, {"run": "b", "score": 1.0}]


def test_no_value_is_markup_or_a_control_character() -> None:
    page = Found(*ROWS)._repr_html_()
    assert page.startswith("<table><thead><tr><th>run</th><th>score</th></tr></thead>")
    assert "<td>&lt;script&gt;\\x1b</td><td>0.3333</td>" in page
    assert page.endswith("<p>n = 1 &amp; no interval</p>")


def test_a_frame_has_whole_numbers_and_names() -> None:
    frame = Found(*ROWS).to_frame()
    assert frame.to_dict("records") == ROWS


def test_no_rows_are_an_empty_table() -> None:
    assert Found().to_frame().empty
    assert "<tbody></tbody>" in Found()._repr_html_()
