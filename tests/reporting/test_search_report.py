"""What a search has shown, counted from its trials."""

import json
from pathlib import Path
from statistics import fmean, stdev

import pytest

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.search_report import Budget, Row, SearchReport, short


def row(number: int, value: float, state: str = "COMPLETE", **more: object) -> Row:
    folds = [value - 0.01, value + 0.01]
    told: dict[str, object] = {"epochs": 4, "planned_epochs": 4, "seconds": 8.0, "folds": folds}
    return Row(number, state, {"map_at_r": value}, {"lr": 0.1}, **{**told, **more})  # type: ignore[arg-type]


def report(*rows: Row, best: int | None = 0) -> SearchReport:
    return SearchReport(("map_at_r",), list(rows), None if best is None else rows[best])


def failed(number: int, reason: str) -> Row:
    return row(number, 0, "FAIL", reason=reason, epochs=1)


def test_the_budget_is_of_the_trials_that_this_search_trained() -> None:
    found = report(
        row(0, 0.4),
        row(1, 0.1, "PRUNED", epochs=1, seconds=3.0),
        row(2, 0.1, "PRUNED", epochs=2, seconds=3.0),
        failed(3, "out of memory"),
        row(4, 0.4, same_as=0),
        row(5, 0.5, imported="runs/older"),
    )
    assert found.budget == Budget(
        epochs=4 + 1 + 2 + 1, planned_epochs=16, stopped=2, saved_epochs=3 + 2,
        seconds=8 + 3 + 3 + 8, saved_seconds=3 * 3 + 2 * 1.5,
    )  # fmt: skip


def test_times_of_old_logs_may_be_unknown() -> None:
    found = report(row(0, 0.1, "PRUNED", epochs=0, seconds=None))
    assert (found.budget.seconds, found.budget.saved_seconds) == (0, 0)


def test_the_gain_is_over_folds_that_both_have() -> None:
    first, best = row(0, 0.4, folds=[0.3, 0.5]), row(1, 0.5, folds=[0.45, 0.55])
    gain = report(first, best, best=1).gain
    assert gain is not None
    differences = [0.45 - 0.3, 0.55 - 0.5]
    assert (gain.value, gain.spread) == pytest.approx((fmean(differences), stdev(differences)))
    assert (gain.better_folds, gain.folds) == (2, 2)


@pytest.mark.parametrize(
    "rows",
    [
        [row(0, 0.4)],  # trial 0 is the best
        [failed(0, "x"), row(1, 0.4)],
        [row(0, 0.4, folds=[]), row(1, 0.5)],
        [row(0, 0.4, folds=[0.4]), row(1, 0.5, folds=[0.5])],
        [row(0, 0.4, folds=[0.4] * 3), row(1, 0.5)],
    ],
)
def test_without_two_equal_sets_of_folds_there_is_no_gain(rows: list[Row]) -> None:
    assert report(*rows, best=len(rows) - 1).gain is None


def test_a_search_is_not_to_be_relied_on_if_most_of_it_failed() -> None:
    half = report(row(0, 0.4), failed(1, "a"))
    assert half.failure is None
    most = report(row(0, 0.4), failed(1, "a"), failed(2, "b"), failed(3, "b"))
    assert most.failure == "3 of 4 trials failed, 2 of them so: b"
    again = report(row(0, 0.4), row(1, 0.4, same_as=0), failed(2, "a"), failed(3, "a"))
    assert again.failure == "2 of 3 trials failed, 2 of them so: a"  # repeats are no trials


def test_the_last_lines_name_the_best_trials_and_what_failed() -> None:
    rows = [row(0, 0.3), failed(1, "x"), *(row(n, n / 10) for n in range(2, 9))]
    found = SearchReport(("map_at_r",), rows, rows[-1], importances={"lr": 0.75})
    lines = list(found.lines())
    assert lines[0] == "best trials, on validation classes:"
    assert [line.split()[1] for line in lines[1:6]] == ["8", "7", "6", "5", "4"]
    assert lines[1] == "  trial 8    map_at_r 0.8  lr 0.1"
    assert "  75.0%  lr" in lines
    assert "1 of 9 trials failed; trials.json has the reasons" in lines


def test_files_hold_every_trial(tmp_path: Path) -> None:
    rows = [row(0, 0.3), failed(1, "x\n\x1b")]
    folder = RunFolder(tmp_path)
    report(*rows).write(folder)
    stored = json.loads(folder.trials.read_text())
    assert (stored["best"], stored["metrics"]) == (0, ["map_at_r"])
    assert [Row(**one) for one in stored["trials"]] == rows
    assert not folder.pareto.exists()
    SearchReport(("map_at_r", "seconds"), rows, rows[0], front=rows[:1]).write(folder)
    assert [one["number"] for one in json.loads(folder.pareto.read_text())] == [0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123456, "0.1235"), (3, "3"), (True, "True"), (None, "None"), (1e-9, "1e-09")],
)
def test_values_are_short(value: object, text: str) -> None:
    assert short(value) == text
