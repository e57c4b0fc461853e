"""A search goes on with more trials, another budget and other resources, and with nothing else."""

from pathlib import Path
from typing import Any

import pytest

from dmlray.api.searches import _set_aside_repeats
from dmlray.learn.class_split import load_dataset
from dmlray.learn.environment import record_environment
from dmlray.plans.ensemble import repeats
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search, read_search
from dmlray.reporting.progress import SilentDisplay
from dmlray.reporting.search_report import Row, SearchReport
from tests.api.commands import SEARCH, run, words
from tests.toy_data import toy_words


@pytest.fixture
def searched(images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> list[Search]:
    """A begun search in `run`; the plans that later sessions search with."""
    plans: list[Search] = []

    def search(plan: Search, folder: RunFolder, *_: Any) -> SearchReport:
        plans.append(plan)
        rows = [Row(0, "COMPLETE", {"map_at_r": 0.5}, plan.base_point(), 1, 1, [0.4, 0.6])]
        return SearchReport(("map_at_r",), rows, rows[0])

    monkeypatch.setattr("dmlray.api.searches.searching.search", search)
    monkeypatch.setattr("dmlray.api.searches.read_study", lambda *_: [])
    toy = [*toy_words(images, 1), "protocol.folds=3", "trials=2"]
    plan, folder = read_search(SEARCH, toy), RunFolder(Path("run"))
    plan.write(folder.plan("search"))
    record_environment(folder, 0, load_dataset(plan.experiment))
    return plans


def test_more_trials_budget_and_resources_are_kept_for_the_next_session(
    searched: list[Search],
) -> None:
    day = run("tune", "--resume", "run", "--trials", "40", "time_budget=2h", "cpus=2", "gpus=0")
    assert day.exit_code == 0, day.output
    assert "run/report.html" in day.output
    (plan,) = searched
    kept = read_search(Path("run/search.yaml")).settings
    for settings in (plan.settings, kept):
        found = (settings.trials, settings.time_budget, settings.cpus, settings.gpus)
        assert found == (40, 7200.0, 2, 0)
    assert kept.scheduler == "asha"
    assert run("tune", "--resume", "run").exit_code == 0
    assert searched[1].settings.trials == 40


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            ["optimizer.lr=0.1"],
            "--resume: optimizer.lr cannot change while a search goes on. A",
        ),
        (["seed=1"], "--resume: seed cannot change while a search goes on"),
        (["trails=40"], "trails cannot change while a search goes on. Did you mean trials?"),
        (["trials=0"], "trials: 0 is not allowed"),
        (["time_budget=soon"], "time_budget"),
        ([str(SEARCH)], "it takes no SEARCH"),
    ],
)
def test_nothing_else_may_change(changes: list[str], sentence: str, searched: list[Search]) -> None:
    before = Path("run/search.yaml").read_bytes()
    refused = run("tune", "--resume", "run", *changes)
    assert refused.exit_code == 2
    assert refused.output.count("\n") == 1
    assert sentence in refused.output
    assert (searched, Path("run/search.yaml").read_bytes()) == ([], before)


@pytest.mark.parametrize("command", ["tune", "plan"])
def test_a_start_that_cannot_be_used_is_refused_before_ray_starts(
    command: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("searches", "runs"):
        monkeypatch.setattr(f"dmlray.api.{module}.session", lambda *_: pytest.fail("starts Ray"))
    refused = run(command, *words("tune", images)[1:], "start_from=nowhere")
    assert refused.exit_code == 2
    assert "nowhere: no such file" in refused.output.splitlines()[-1]
    assert not Path("runs").exists()


def test_repeats_of_an_earlier_winner_are_kept_beside_those_of_the_new_one(
    images: Path, tmp_path: Path
) -> None:
    plan, folder = read_search(SEARCH, toy_words(images, 1)), RunFolder(tmp_path / "run")
    folder.path.mkdir()

    def win(number: int, trials: int, **values: Any) -> None:
        plan.write_winner(folder.best, number, {**plan.base_point(), **values}, 0.5, trials)

    win(0, 2)
    _set_aside_repeats(folder, 2, SilentDisplay())  # there are none yet
    repeats(read_experiment(folder.best).experiment, 2).write(folder.repeat.plan("repeat"))
    win(0, 40)  # the same winner of more trials
    _set_aside_repeats(folder, 2, SilentDisplay())
    assert folder.repeat.path.exists()
    win(3, 40, **{"method.margin": 0.25})
    _set_aside_repeats(folder, 2, SilentDisplay())
    assert (folder.path / "repeat_1" / "repeat.yaml").exists()
    assert not folder.repeat.path.exists()
