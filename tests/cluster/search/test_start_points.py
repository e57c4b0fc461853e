"""A new search begins with the points of another one, and with its results where they count."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest

from dmlray.cluster.search.results import read_results
from dmlray.cluster.search.run import _epochs
from dmlray.cluster.search.searcher import StudySearcher
from dmlray.cluster.search.start_points import read_start
from dmlray.errors import ConfigError
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search, read_search
from tests.cluster.search.test_searcher import TEXT, told

WHERE = "start_from: "


def plan(*words: str, text: str = TEXT) -> Search:
    Path("search.yaml").write_text(text)
    return read_search("search.yaml", words)


def opened(run: str, *words: str, text: str = TEXT) -> StudySearcher:
    """A search whose plan is in its folder, as `dmlray tune` leaves it."""
    folder, made = RunFolder(Path(run)), plan(*words, text=text)
    if not folder.plan("search").exists():
        made.write(folder.plan("search"))
    return StudySearcher(made, folder)


@pytest.fixture(autouse=True)
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StudySearcher:
    """A search `first` with trials 0 to 3: complete, pruned, failed, complete."""
    experiment = Path("experiments/proxy_anchor_demo.yaml").absolute()
    (tmp_path / "experiments").symlink_to(experiment.parent)
    monkeypatch.chdir(tmp_path)
    study = opened("first", "sampler=random")
    told(study, "a")
    told(study, "b", epochs=1)
    told(study, "c", error="out of memory")
    told(study, "d")
    study.flush()
    return study


def points(study: StudySearcher, count: int) -> list[dict[str, Any]]:
    return [told(study, f"n{number}") for number in range(count)]


def test_results_of_an_equal_search_are_taken_over(first: StudySearcher) -> None:
    study = opened("second", "start_from=first", "trials=3", "sampler=random", "seed=1")
    old = [first.study.trials[number] for number in (0, 1, 3)]
    for new, row in zip(study.study.trials, old, strict=True):
        assert (new.state, new.params, new.values) == (row.state, row.params, row.values)
        assert new.intermediate_values == row.intermediate_values
    assert study.note == "3 results of first are taken over"
    assert study.missing == 3  # trials of its own
    asked = points(study, 3)
    assert all(values not in [row.params for row in old] for values in asked)
    study.flush()
    assert study.missing == 0
    assert opened("second", "trials=3").missing == 0  # also where `first` is not looked at again
    found = read_results(study._plan, study._folder)
    assert [row.imported for row in found.rows[:3]] == [
        f"first trial {number}" for number in (0, 1, 3)
    ]
    assert [row.epochs for row in found.rows[:3]] == [2, 1, 2]
    assert found.budget.epochs == 3 * 2
    assert len(found.rows) == 6
    loaded = optuna.load_study(study_name="dmlray", storage="sqlite:///second/study.db")
    assert [row.number for row in loaded.trials] == list(range(6))


def test_a_scheduler_learns_from_results_taken_over(first: StudySearcher) -> None:
    study = opened("second", "start_from=first")
    row = study.study.trials[0]
    margin = row.params["method.margin"]
    lines = [{"epoch": 1, "map_at_r": margin}, {"epoch": 2, "map_at_r": margin}]
    assert _epochs(study._plan, study._folder, row) == lines


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("space.method.margin.high=0.5",), "space.method.margin"),
        (("optimizer.lr=0.01",), "optimizer.lr"),
    ],
)
def test_only_points_of_an_unlike_search_are_taken_over(
    words: tuple[str, ...], reason: str, first: StudySearcher
) -> None:
    study = opened("second", "start_from=first", "trials=4", *words)
    assert study.study.trials == []
    assert reason in study.note
    best_first = sorted((first.study.trials[n] for n in (0, 3)), key=lambda row: -row.values[0])
    expected = [study._plan.base_point()] + [row.params for row in best_first if row.number]
    assert [told(study, "x"), told(study, "y")] == expected


def test_other_images_keep_results_from_counting(first: StudySearcher) -> None:
    found = read_start(plan("start_from=first"), "another")
    assert found.trials == []
    assert "data set differs" in found.note


def test_given_points_come_right_after_trial_0_also_after_a_kill() -> None:
    text = TEXT + "start_from:\n- {method.margin: 0.3}\n- {method: {dim: 64, alpha: 36}}\n"
    study = opened("second", "trials=5", text=text)
    given = [{"method.margin": 0.3, "method.dim": 128},
             {"method.margin": 0.1, "method.dim": 64, "method.alpha": 36}]  # fmt: skip
    assert points(study, 2) == [study._plan.base_point(), given[0]]
    study.flush()
    again = opened("second", "trials=5", text=text)
    assert told(again, "x") == given[1]
    assert len(again.study.trials) == 3


def test_a_winner_is_tried_in_another_space(first: StudySearcher) -> None:
    found = read_results(first._plan, first._folder)
    best = found.best
    first._plan.write_winner(Path("best.yaml"), best.number, best.values, 0.5, 4)
    study = opened("second", "start_from=best.yaml", "space.method.margin.high=0.5")
    assert study._first[1] == best.values


def test_points_of_a_space_that_has_few_of_them_in_common(first: StudySearcher) -> None:
    inside = [
        row
        for row in first.study.trials
        if row.state.name == "COMPLETE" and row.params["method.dim"] == 128
    ]
    text = TEXT.replace("{choices: [128, 64]}", "128")
    text = text.replace(
        "  method.alpha: {low: 8, high: 64, step: 28, when: {method.dim: 64}}\n", ""
    )
    found = read_start(plan("start_from=first", text=text), None)
    assert {point["method.margin"] for point in found.points} == {
        row.params["method.margin"] for row in inside
    }


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("nowhere", "nowhere"),
        ("{a: 1}", "start_from: {'a': 1} is not allowed"),
        ("[]", r"start_from: \[\] is not allowed. Allowed: a run folder or file, or a list of"),
        ("[1]", r"\[1\] is not allowed"),
        ("[{method.magin: 1}]", "point 1: method.magin is not searched. Did you mean"),
        ("[{method.margin: 0.9}]", "point 1: method.margin = 0.9. Allowed: 0 to 0.4 in steps of"),
        ("[{method.dim: 32}]", "method.dim = 32. Allowed: 128, 64"),
        ("[{method.alpha: 8}]", "method.alpha has no effect there"),
        ("training", "training holds experiment.yaml. Allowed: a search, a file"),
        ("empty", "empty: none of its trials has a result yet"),
    ],
)
def test_bad_input_is_one_sentence(value: str, sentence: str, tmp_path: Path) -> None:
    Path("training").mkdir()
    Path("training/experiment.yaml").write_text("")
    opened("empty")
    with pytest.raises(ConfigError, match=sentence) as refusal:
        read_start(plan(f"start_from={value}"), None)
    assert "\n" not in str(refusal.value).strip()


def test_a_torn_study_of_the_other_search_is_named(first: StudySearcher) -> None:
    Path("first/study.db").write_bytes(b"torn")
    with pytest.raises(ConfigError, match=r"first/study\.db: is damaged"):
        read_start(plan("start_from=first"), None)


def test_a_plan_with_points_is_legal_to_read_back() -> None:
    made = plan("start_from=[{method.margin: 0.3}]")
    made.write(Path("again.yaml"))
    assert read_search("again.yaml").settings.start_from == made.settings.start_from
    assert json.dumps(made.document()["start_from"]) == '[{"method.margin": 0.3}]'
