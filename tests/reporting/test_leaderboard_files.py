"""A leaderboard in all its forms: whole, escaped, with the critical differences as a picture."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.leaderboard_files import write_leaderboard
from dmlray.reporting.leaderboard_tables import summary
from dmlray.reporting.rank_figure import critical_difference_figure, groups
from dmlray.results.leaderboard import Leaderboard, leaderboard
from tests.results.test_leaderboard import cell

EVIL = "<script>alert(1)</script>\n\x1b[2J"


@pytest.fixture(scope="module")
def found() -> Leaderboard:
    levels = {"one": (0.5, 0.4, 0.3), "two": (0.6, 0.7, 0.2)}
    cells = [
        cell(f"m{n}", level, dataset)
        for dataset, each in levels.items()
        for n, level in enumerate(each)
    ]
    failed = replace(cell("m9", 0.1, "two"), tuned=None, default=None, failure=EVIL)
    return leaderboard([*cells, failed])


def test_every_form_is_written(found: Leaderboard, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_leaderboard(folder, found)
    document = json.loads(folder.leaderboard("json").read_text())
    row = document["datasets"]["one"]["rows"][0]
    assert (row["method"], row["rank"]) == ("m0", 1)
    assert row["scores"]["metrics"]["map_at_r"] == pytest.approx(0.5004)
    assert row["won"] == {"optimizer.lr": 0.001}
    assert sum(row["seconds"].values()) == 5.5
    assert document["overall"]["mean_ranks"]["m0"] == 1.5
    rows = list(csv.DictReader(folder.leaderboard("csv").read_text().splitlines()))
    assert len(rows) == 7
    assert float(rows[0]["map_at_r"]) == pytest.approx(0.5004)
    assert folder.leaderboard("png").read_bytes().startswith(b"\x89PNG")
    assert r"\begin{tabular}" in folder.leaderboard("tex").read_text()


def test_nothing_is_markup_and_the_page_loads_nothing(found: Leaderboard, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_leaderboard(folder, found)
    page = folder.leaderboard("html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
    assert "http" not in page.replace("http-equiv", "")
    for suffix in ("html", "md", "tex", "csv"):
        assert "\x1b" not in folder.leaderboard(suffix).read_text()


def test_the_first_table_has_mean_interval_and_rank_on_each_data_set(found: Leaderboard) -> None:
    table = summary(found)
    assert table.head == ["mean rank", "method", "one", "two"]
    assert table.rows[0] == ["1.50", "m0", "50.0 ± 0.3 (1)", "60.0 ± 0.3 (2)"]
    assert table.rows[-1] == ["-", "zero-shot (no training)", "10.0", "10.0"]
    assert table.rows[3] == ["-", "m9", "-", "failed"]  # it was not run on the first


def test_only_methods_within_the_critical_difference_are_connected() -> None:
    assert groups([1.0, 1.5, 3.0, 3.4, 5.0], 1.0) == [(0, 1), (2, 3)]
    assert groups([1.0, 1.8, 2.6], 1.0) == [(0, 1), (1, 2)]
    assert groups([1.0, 1.2, 1.4], 1.0) == [(0, 2)]  # no run inside another
    assert groups([1.0, 3.0], 1.0) == []


def test_each_method_is_drawn_at_its_mean_rank() -> None:
    figure = critical_difference_figure({"a": 1.2, "b": 2.0, "c": 2.8}, 0.9)
    axes = figure.axes[0]
    drawn = {float(np.asarray(line.get_xdata())[0]) for line in axes.lines}
    assert {1.2, 2.0, 2.8} <= drawn
    assert {text.get_text().split()[0] for text in axes.texts} == {"a", "b", "c", "critical"}
