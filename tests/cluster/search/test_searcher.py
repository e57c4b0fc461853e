"""A study without Ray: suggestions, storage, end and report of a search."""

import errno
import sqlite3
from pathlib import Path
from typing import Any

import optuna
import pytest

from dmlray.cluster import error_messages
from dmlray.cluster.error_messages import DIED
from dmlray.cluster.search.results import find
from dmlray.cluster.search.searcher import StudySearcher
from dmlray.errors import ConfigError, DiskFullError
from dmlray.learn import metrics_log
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search, read_search
from dmlray.reporting.search_report import SearchReport

TEXT = """experiment: experiments/proxy_anchor_demo.yaml
use_method_space: false
space:
  method.margin: {low: 0.0, high: 0.4, step: 0.1}
  method.dim: {choices: [128, 64]}
  method.alpha: {low: 8, high: 64, step: 28, when: {method.dim: 64}}
set: {budget.epochs: 2}
"""
GRID = 5 * 1 + 5 * 3
SAMPLERS = ("tpe", "gp", "cmaes", "random", "grid")


def plan(tmp_path: Path, *words: str) -> Search:
    path = tmp_path / "search.yaml"
    path.write_text(TEXT)
    return read_search(path, words)


def opened(tmp_path: Path, *words: str) -> StudySearcher:
    return StudySearcher(plan(tmp_path, *words), RunFolder(tmp_path))


def told(study: StudySearcher, name: str, epochs: int = 2, **last: Any) -> dict[str, Any]:
    """Run one trial whose score is its margin; its values, all as Tune would tell them."""
    config = study.suggest(name)
    assert isinstance(config, dict), config
    values: dict[str, Any] = config["values"]
    folder = study._folder.trial(config["number"])
    folder.path.mkdir(parents=True, exist_ok=True)
    metrics = {"map_at_r": values["method.margin"], "embedding_size": values.get("method.dim", 1)}
    for epoch in range(1, epochs + 1):
        metrics_log.append(folder.metrics, {"epoch": epoch, **metrics})
        study.on_trial_result(name, {"epoch": epoch, **metrics})
    study.on_trial_complete(name, {"epoch": epochs, **metrics, **last})
    return values


def report(study: StudySearcher) -> SearchReport:
    return find(study._plan, study._folder, study.study)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_begins_at_the_published_point_and_minds_conditions(
    sampler: str, tmp_path: Path
) -> None:
    study = opened(tmp_path, f"sampler={sampler}", "startup_trials=3")
    assert told(study, "t0") == {"method.margin": 0.1, "method.dim": 128}
    asked = [told(study, f"t{number}") for number in range(1, 8)]
    assert {len(values) for values in asked} <= {2, 3}
    for values in asked:
        assert ("method.alpha" in values) == (values["method.dim"] == 64)


def test_a_grid_tries_each_combination_once_also_over_two_sessions(tmp_path: Path) -> None:
    words = ("sampler=grid", "trials=1000")
    first = opened(tmp_path, *words)
    assert first.missing == GRID
    asked = [told(first, f"a{number}") for number in range(8)]
    first.flush()  # a session ends so, or is over: two never write at once
    second = opened(tmp_path, *words)
    asked += [told(second, f"b{number}") for number in range(second.missing)]
    assert len({tuple(sorted(values.items())) for values in asked}) == len(asked) == GRID
    assert second.missing == 0


def test_the_seed_gives_the_same_points(tmp_path: Path) -> None:
    def points(folder: str, seed: int) -> list[dict[str, Any]]:
        (tmp_path / folder).mkdir()
        study = opened(tmp_path / folder, f"seed={seed}", "startup_trials=2")
        return [told(study, f"t{number}") for number in range(6)]

    assert points("one", 3) == points("two", 3) != points("three", 4)


def points_by_order(
    folder: Path, sampler: str, at_once: int | None, slow: int
) -> list[dict[str, Any]]:
    """Points of ten trials, three at once, of which every `slow`-th takes longer than others."""
    folder.mkdir()
    made = plan(folder, f"sampler={sampler}", "startup_trials=2", "trials=10")
    study, running = StudySearcher(made, RunFolder(folder), at_once), list[str]()
    found: dict[str, dict[str, Any]] = {}
    names = iter(f"t{number}" for number in range(10))
    waiting = next(names, None)
    while running or waiting:
        config = study.suggest(waiting) if waiting and len(running) < 3 else None
        if isinstance(config, dict):
            found[str(waiting)] = config["values"]
            running.append(str(waiting))
            waiting = next(names, None)
            continue
        assert config is None
        fast = [name for name in running if int(name[1:]) % slow]
        ending = (fast or running)[0]
        running.remove(ending)
        score = found[ending]["method.margin"] + found[ending]["method.dim"] / 1000
        study.on_trial_complete(ending, {"epoch": 2, "map_at_r": score})
    study.flush()
    assert len(study.finished()) >= 10
    return list(found.values())


@pytest.mark.parametrize(
    ("sampler", "at_once"), [("tpe", 3), ("gp", 3), ("cmaes", 3), ("random", None), ("grid", None)]
)
def test_a_seed_gives_the_same_points_whichever_trial_ends_first(
    sampler: str, at_once: int | None, tmp_path: Path
) -> None:
    one, other = (points_by_order(tmp_path / f"{slow}", sampler, at_once, slow) for slow in (1, 3))
    assert one == other


def test_points_would_depend_on_the_machine_without_an_order(tmp_path: Path) -> None:
    free = [points_by_order(tmp_path / f"{slow}", "tpe", None, slow) for slow in (1, 2, 3, 7)]
    assert any(points != free[0] for points in free)


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 8, 16])
def test_as_many_trials_begin_as_run_at_the_same_time(at_once: int, tmp_path: Path) -> None:
    study = StudySearcher(plan(tmp_path), RunFolder(tmp_path), at_once)
    for number in range(at_once):
        assert isinstance(study.suggest(f"t{number}"), dict), number
    assert study.suggest("next") is None
    study.on_trial_complete("t0", {"epoch": 2, "map_at_r": 0.5})
    assert isinstance(study.suggest("next"), dict)


def test_what_is_held_back_from_the_sampler_is_in_the_file_at_once(tmp_path: Path) -> None:
    study = StudySearcher(plan(tmp_path), RunFolder(tmp_path), 2)
    configs = [study.suggest(name) for name in "ab"]
    assert all(isinstance(config, dict) for config in configs)
    study.on_trial_complete("b", {"epoch": 2, "map_at_r": 0.5})
    assert study.suggest("c") is None  # waits for a
    assert study.suggest("c") is None
    study.flush()
    (kept,) = opened(tmp_path).finished()  # by a session after a kill
    assert (kept.number, kept.value) == (1, 0.5)
    study.on_trial_complete("a", error=True)
    assert isinstance(study.suggest("c"), dict)


def test_ends_are_kept_as_what_they_were(tmp_path: Path) -> None:
    study = opened(tmp_path)
    told(study, "whole")
    told(study, "stopped", epochs=1)
    told(study, "failed", error="out of memory")
    study.suggest("died")
    study.on_trial_complete("died", error=True)
    study.flush()
    loaded = optuna.load_study(study_name="dmlray", storage=f"sqlite:///{tmp_path}/study.db")
    assert [row.state.name for row in loaded.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    for rows in (loaded.trials, study.study.trials):
        assert [row.user_attrs.get("reason") for row in rows] == [None, None, "out of memory", DIED]
        assert [len(row.intermediate_values) for row in rows] == [2, 1, 2, 0]
    assert [row.params for row in loaded.trials] == [row.params for row in study.study.trials]
    assert [row.reason for row in report(study).rows] == [None, None, "out of memory", DIED]


def test_begun_trials_go_on_in_the_next_session_with_their_values(tmp_path: Path) -> None:
    first = opened(tmp_path)
    begun = [first.suggest("a"), first.suggest("b")]
    second = opened(tmp_path)
    assert [second.suggest("c"), second.suggest("d")] == begun
    assert not second.finished()


def test_an_end_that_a_crash_kept_from_the_file_is_told_again(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first._record.end = lambda number, end: None  # type: ignore[method-assign]
    values = told(first, "a")
    second = opened(tmp_path)
    assert told(second, "b") == values
    second.flush()
    assert [row.number for row in opened(tmp_path).finished()] == [0]


def test_a_study_that_cannot_be_written_is_not_silent(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.suggest("a")
    with sqlite3.connect(tmp_path / "study.db") as file:
        file.execute("DROP TABLE trial_intermediate_values")
    study.on_trial_result("a", {"epoch": 1, "map_at_r": 0.5})
    with pytest.raises(optuna.exceptions.StorageInternalError):
        study.flush()


def test_too_many_failures_in_a_row_end_the_search_with_their_common_cause(tmp_path: Path) -> None:
    study = opened(tmp_path, "failures_in_a_row=3")
    for number, reason in enumerate(["full", "full"]):
        told(study, f"a{number}", error=reason)
    told(study, "well")
    assert study.stopped_by is None
    for number, reason in enumerate(["full", "odd", "full"]):
        told(study, f"b{number}", error=reason)
    assert study.stopped_by == "3 trials in a row failed, 2 of them so: full"
    assert study.suggest("next") == "FINISHED"
    assert isinstance(opened(tmp_path, "failures_in_a_row=3").suggest("next"), dict)


def test_no_trial_begins_after_the_time_budget(tmp_path: Path) -> None:
    study = opened(tmp_path, "time_budget=0.000001")
    assert study.suggest("late") == "FINISHED"
    assert study.missing == 20


def test_a_plan_that_contradicts_its_study_is_refused(tmp_path: Path) -> None:
    told(opened(tmp_path), "t0")
    opened(tmp_path, "trials=99", "trials_at_once=1", "data.root=elsewhere")  # no contradiction
    with pytest.raises(ConfigError) as refusal:
        opened(tmp_path, "space.method.margin.high=0.3", "optimizer.lr=0.01", "folds=3")
    message = str(refusal.value)
    assert "3 problems" in message
    assert "optimizer.lr: 0.01 contradicts the study, which was begun with" in message
    assert '"high": 0.3' in message


def test_several_metrics_give_a_front_and_its_best_by_the_first(tmp_path: Path) -> None:
    study = opened(tmp_path, "metric=[map_at_r,embedding_size]", "sampler=grid", "trials=999")
    for number in range(study.missing):
        told(study, f"t{number}")
    shown = report(study)
    assert {(row.metrics["map_at_r"], row.metrics["embedding_size"]) for row in shown.front} == {
        (0.4, 64)
    }
    assert shown.best in shown.front
    shown.write(RunFolder(tmp_path))
    assert '"number"' in (tmp_path / "pareto.json").read_text()


def test_findings_tell_what_mattered_and_what_lies_on_a_bound(tmp_path: Path) -> None:
    study = opened(tmp_path, "sampler=grid", "trials=99")
    told(study, "t0")
    assert report(study).importances == {}
    for number in range(study.missing):
        told(study, f"u{number}")
    shown = report(study)
    assert next(iter(shown.importances)) == "method.margin"
    assert len(shown.top()) == 5
    assert any("method.margin = 0.4 of the best trial lies on a bound" in w for w in shown.warnings)
    assert any("share of the variance" in line for line in shown.lines())


def test_a_full_disk_ends_the_session_and_leaves_the_trial_for_the_next(tmp_path: Path) -> None:
    first = opened(tmp_path)
    begun = first.suggest("a")
    error = error_messages.as_dmlray_error(OSError(errno.ENOSPC, "No space left on device"))
    assert isinstance(error, DiskFullError)
    first.on_trial_complete("a", {"unfinished": str(error), "epoch": 0})
    assert first.stopped_by == "the disk is full: free some space"
    assert first.suggest("b") == "FINISHED"
    second = opened(tmp_path)
    assert second.stopped_by is None
    assert not second.finished()
    assert second.suggest("c") == begun


SPACE = """space:
  method.margin: {low: 0.1, high: 0.3, step: 0.1}
  method.dim: {choices: [128, 64]}
"""
ENDS: dict[str, dict[str, Any]] = {
    "complete": {},
    "pruned": {"epochs": 1},
    "failed": {"error": "out of memory"},
}


def small(tmp_path: Path, *words: str) -> StudySearcher:
    """A space of 3 x 2 points, which has more trials than points."""
    path = tmp_path / "search.yaml"
    head, _, rest = TEXT.partition("space:\n")
    path.write_text(head + SPACE + rest[rest.index("set:") :])
    return StudySearcher(
        read_search(path, ["trials=50", "failures_in_a_row=99", *words]), RunFolder(tmp_path)
    )


def points(study: StudySearcher, keep: bool = True) -> list[tuple[Any, ...]]:
    """The points of all rows of a study, or of those alone that were trained."""
    rows = [row for row in study.study.trials if keep or "same_as" not in row.user_attrs]
    return [tuple(row.params.values()) for row in rows]


@pytest.mark.parametrize("metric", ["map_at_r", "[map_at_r,embedding_size]"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_finite_space_ends_when_each_point_was_trained_once(
    sampler: str, metric: str, tmp_path: Path
) -> None:
    if sampler == "cmaes" and metric != "map_at_r":
        pytest.skip("seeks one metric")
    words = (f"sampler={sampler}", f"metric={metric}", "startup_trials=2")
    study, asked = small(tmp_path, *words), 0
    for _ in range(3):  # sessions
        for _ in range(min(2, study.missing)):
            told(study, f"t{asked}")
            asked += 1
        study.flush()
        study = small(tmp_path, *words)
    assert (asked, study.missing) == (6, 0)
    trained = points(study, keep=False)
    assert len(set(trained)) == len(trained) == 6
    assert study.suggest("more") == "FINISHED"
    shown = report(study)
    assert len(shown.trained) == 6
    assert shown.failure is None
    assert len({row.number for row in shown.top()}) == 5


@pytest.mark.parametrize("end", ENDS)
def test_a_point_suggested_again_ends_as_it_did(end: str, tmp_path: Path) -> None:
    study = small(tmp_path, "sampler=random")
    for number in range(study.missing):
        told(study, f"t{number}", **{"epochs": 2, **ENDS[end]})
    study.flush()
    kept = small(tmp_path, "sampler=random").study.trials
    again = [row for row in kept if "same_as" in row.user_attrs]
    assert again
    assert len(kept) - len(again) == 6
    for row in again:
        first = kept[row.user_attrs["same_as"]]
        assert (row.state, row.values, row.params) == (first.state, first.values, first.params)
        assert row.intermediate_values == first.intermediate_values
        assert row.user_attrs.get("reason") == first.user_attrs.get("reason")
        assert not study._folder.trial(row.number).path.exists()


def test_a_point_that_is_being_trained_is_waited_for_also_by_the_next_session(
    tmp_path: Path,
) -> None:
    study = small(tmp_path, "sampler=random")
    begun = [study.suggest(f"t{number}") for number in range(study.missing)]
    rows = study.study.trials
    waiting = [row for row in rows if "same_as" in row.user_attrs]
    assert waiting
    assert {row.state.name for row in rows} == {"RUNNING"}
    second = small(tmp_path, "sampler=random")
    assert [second.suggest(f"u{number}") for number in range(second.missing)] == begun
    for number in range(6):
        second.on_trial_complete(f"u{number}", {"epoch": 2, "map_at_r": number / 10})
    second.flush()
    for study in (second, small(tmp_path, "sampler=random")):
        assert {row.state.name for row in study.study.trials} == {"COMPLETE"}
        assert len({(row.params["method.dim"], row.value) for row in study.study.trials}) == 6


def test_a_kill_may_lose_the_end_of_a_point_that_was_repeated(tmp_path: Path) -> None:
    study = small(tmp_path, "sampler=random")
    study._record.end = lambda number, end: None  # type: ignore[method-assign]
    for number in range(6):
        told(study, f"t{number}")
    study.flush()
    rows = study.study.trials
    second = small(tmp_path, "sampler=random")
    assert any("same_as" in row.user_attrs for row in second.finished())
    for number in range(second.missing):
        told(second, f"u{number}")
    second.flush()
    again = small(tmp_path, "sampler=random").study.trials
    assert [(row.params, row.values) for row in again] == [(r.params, r.values) for r in rows]


def test_trials_are_points_and_not_suggestions(tmp_path: Path) -> None:
    study = small(tmp_path, "sampler=random", "trials=4")
    for number in range(4):
        told(study, f"t{number}")
    assert study.missing == 0
    assert len(set(points(study, keep=False))) == 4


def test_a_space_that_is_only_nearly_endless_is_searched_where_it_is(tmp_path: Path) -> None:
    """Half of what is suggested is one and the same point."""
    path = tmp_path / "search.yaml"
    path.write_text(
        "experiment: experiments/proxy_anchor_demo.yaml\nuse_method_space: false\n"
        "set: {budget.epochs: 2, method.margin: 0.1}\nspace:\n"
        "  method.dim: {choices: [128, 64]}\n  method.margin: {low: 0.1, high: 0.1}\n"
        "  method.alpha: {low: 8, high: 64, when: {method.dim: 64}}\ntrials: 9\nsampler: random\n"
    )
    study = StudySearcher(read_search(path), RunFolder(tmp_path))
    asked = [told(study, f"t{number}") for number in range(study.missing)]
    assert [values["method.dim"] for values in asked] == [128] + [64] * 8
    assert len({values.get("method.alpha") for values in asked}) == 9


def test_an_endless_space_of_one_point_ends(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text(
        "experiment: experiments/proxy_anchor_demo.yaml\nuse_method_space: false\n"
        "set: {budget.epochs: 2, method.margin: 0.1}\n"
        "space: {method.margin: {low: 0.1, high: 0.1}}\n"
    )
    study = StudySearcher(read_search(path), RunFolder(tmp_path))
    assert told(study, "t0") == {"method.margin": 0.1}
    assert study.suggest("t1") == "FINISHED"


def test_a_search_that_mostly_fails_says_so_beside_its_best(tmp_path: Path) -> None:
    study = opened(tmp_path)
    told(study, "well")
    assert report(study).failure is None
    told(study, "a", error="odd")
    assert report(study).failure is None  # half of them
    told(study, "b", error="full")
    told(study, "c", error="full")
    shown = report(study)
    assert shown.failure == "3 of 4 trials failed, 2 of them so: full"
    assert shown.best is not None
    assert shown.best.number == 0
