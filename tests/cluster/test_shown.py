"""Display of trainings that run in other processes."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from dmlray.cluster.ensemble.member_queue import MemberQueue
from dmlray.cluster.resources import Cluster
from dmlray.cluster.search import tune_callback
from dmlray.cluster.search.searcher import StudySearcher
from dmlray.cluster.search.tune_callback import TuneCallback
from dmlray.cluster.train import EpochDisplay
from dmlray.learn import metrics_log
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.progress import Display, SilentDisplay
from tests.cluster import fake_actors


def test_epochs_are_shown_and_then_other_counts(tmp_path: Path) -> None:
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment
    output, folder = io.StringIO(), RunFolder(tmp_path)
    display = Display(Console(file=output, width=200))
    display.start("epochs", 2)
    poll = EpochDisplay(plan, folder, display)
    poll()
    metrics_log.append(folder.metrics, {"epoch": 1, "loss": 2.0, "map_at_r": 0.5})
    poll()
    metrics_log.append(  # seen with the first count
        folder.metrics, {"epoch": 2, "loss": 1.0, "map_at_r": 0.25, metrics_log.SPEED: 1234.4}
    )
    for done in (5, 20):
        metrics_log.count(folder.progress_log, "k-means, iterations")(done, 20)
        poll()
    folder.progress_log.unlink()
    poll()
    shown = [line.replace(" (00:00 left)", "") for line in output.getvalue().splitlines()]
    assert [line.rstrip() for line in shown] == [
        "epochs: 2 to do",
        "epochs: 2/2 loss 1.000 map_at_r 0.250 best 0.500 1,234 images/s",
        "k-means, iterations: 20 to do",
        "k-means, iterations: 20/20",
    ]


def test_a_search_shows_the_speed_of_its_running_trials(tmp_path: Path) -> None:
    plan, folder = read_search("searches/rcdml_demo.yaml", ["trials=2"]), RunFolder(tmp_path)
    study, shown = StudySearcher(plan, folder), _Notes()
    callback = TuneCallback(plan, folder, study, shown)
    both: list[Any] = [SimpleNamespace(trial_id=name, last_result={}) for name in "ab"]
    for trial in both:
        study.suggest(trial.trial_id)
        for speed in (7.0, 100.0):
            result = {"epoch": 1, "map_at_r": 0.5, metrics_log.SPEED: speed}
            callback.on_trial_result(1, both, trial, result)
    assert shown.notes[-1] == "0 trials done, best map_at_r 0.500 200 images/s"
    for trial in both:
        callback.on_trial_complete(1, both, trial)
    assert shown.notes[-2:] == [
        "1 trials done, best map_at_r 0.500 100 images/s",
        "2 trials done, best map_at_r 0.500",
    ]


def test_a_trial_that_starts_again_frees_what_its_workers_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = read_search("searches/rcdml_demo.yaml", ["trials=2"]), RunFolder(tmp_path)
    study, freed = StudySearcher(plan, folder), list[Path]()
    monkeypatch.setattr(tune_callback, "release", lambda trial: freed.append(trial.path))
    callback = TuneCallback(plan, folder, study, _Notes())
    for name in "ab":
        study.suggest(name)
    trial: Any = SimpleNamespace(trial_id="b", last_result={})
    callback.on_trial_recover(1, [trial], trial)
    assert freed == [folder.trial(1).path]


def test_an_ensemble_shows_the_speed_of_its_running_members(tmp_path: Path) -> None:
    plan: Any = fake_actors.Plan(3)
    queue = MemberQueue(plan, RunFolder(tmp_path), Cluster(4, 0, 1), 1)
    shown = _Notes()
    queue.todo, queue.active = [2], {"one reference": 0, "another": 1}
    queue._show(shown)
    assert shown.notes == ["0 members done, 2 running"]
    for member, speeds in enumerate([(9.0, 100.0), (50.0,)]):
        log = queue.folder.member(member).metrics
        log.parent.mkdir(parents=True)
        for epoch, speed in enumerate(speeds, 1):
            metrics_log.append(log, {"epoch": epoch, metrics_log.SPEED: speed})
    queue._show(shown)
    assert shown.notes[-1] == "0 members done, 2 running 150 images/s"


class _Notes(SilentDisplay):
    """Keeps the notes."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def update(self, done: int, note: str = "") -> None:
        self.notes.append(note)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"title": "half"}'])
def test_an_unreadable_count_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "counting.json").write_text(content)
    assert metrics_log.counted(tmp_path / "counting.json") is None
    assert metrics_log.counted(tmp_path / "missing.json") is None
