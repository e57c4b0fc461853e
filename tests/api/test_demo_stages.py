"""The demo's stages hand on to each other what the README says they do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dmlray.api import demo_stages
from dmlray.api.demo_stages import demo
from dmlray.cluster.resources import Cluster
from dmlray.data.datasets import registry
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.progress import SilentDisplay
from dmlray.scores import Scores
from tests.reporting.test_run_report import scores

SEARCH = Path("searches/rcdml_heads_demo.yaml").absolute()


class Log(SilentDisplay):
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, text: str) -> None:
        self.lines.append(text)


class Stages:
    """In the place of trainings: what each was asked for, and scores that tell them apart."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def scores(self, value: float) -> Scores:
        return replace(scores(zero_shot={"map_at_r": 0.1}), metrics={"map_at_r": value})

    def heads(self, plan: Experiment, folder: RunFolder, display: object) -> Scores:
        self.calls.append((folder.path.name, {"plan": plan}))
        return self.scores(0.2 if folder.path.name == "start" else 0.3)

    def tune(self, display: object, **given: Any) -> Any:
        self.calls.append(("tune", given))
        folder = RunFolder(given.get("out", given.get("resume")))
        plan = read_search(SEARCH)
        folder.path.mkdir(parents=True, exist_ok=True)
        plan.write(folder.plan("search"))
        plan.write_winner(folder.best, 3, {**plan.base_point(), "optimizer.lr": 0.002}, 0.5, 10)
        return SimpleNamespace(best=folder.best)

    def stage(self, name: str, value: float) -> Any:
        def run(display: object, **given: Any) -> Any:
            self.calls.append((name, given))
            folder = RunFolder(given.get("out", given.get("resume")))
            return SimpleNamespace(folder=folder, scores=self.scores(value))

        return run


@pytest.fixture
def stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stages:
    @contextmanager
    def no_ray(**_: object) -> Iterator[Cluster]:
        yield Cluster(2.0, 0.0, 1)

    found = Stages()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_stages, "session", no_ray)
    monkeypatch.setattr(registry, "load", lambda *_: None)
    monkeypatch.setattr(demo_stages, "_train_here", found.heads)
    monkeypatch.setattr(demo_stages, "tune", found.tune)
    for name, value in (("train", 0.4), ("ensemble", 0.0), ("merge", 0.5)):
        monkeypatch.setattr(demo_stages, name, found.stage(name, value))
    monkeypatch.setattr(demo_stages, "query_icons", lambda *_: (Path("query.html"), Path("model")))
    return found


def test_each_stage_builds_on_the_winner_of_the_search(stages: Stages, tmp_path: Path) -> None:
    found = demo(out="run", display=None)
    calls = dict(stages.calls)
    assert list(calls) == ["start", "tune", "heads", "train", "ensemble", "merge"]
    assert calls["start"]["plan"] == read_search(SEARCH).experiment
    best = read_experiment(tmp_path / "run/search/best.yaml").experiment
    assert best.optimizer.lr == 0.002
    assert calls["heads"]["plan"] == best
    whole = {"backbone.frozen": False, "budget.epochs": 3}
    assert calls["train"]["overrides"] == whole
    assert calls["ensemble"]["experiments"] == override(best, "", {**whole, "seed": best.seed + 1})
    assert (calls["ensemble"]["size"], calls["ensemble"]["vary"]) == (2, "seed")  # with it: three
    assert [run.name for run in calls["merge"]["runs"]] == ["winner", "ensemble"]
    assert [(stage, row["map_at_r"]) for stage, row in found.rows] == [
        ("pretrained network", 0.1),
        ("rcdml, default heads", 0.2),
        ("rcdml, searched heads", 0.3),
        ("winner, whole network", 0.4),
        ("three seeds merged", 0.5),
    ]


def test_a_second_call_resumes_each_stage_that_has_begun(stages: Stages) -> None:
    demo(out="run", display=None)
    stages.calls.clear()
    demo(out="run", display=None)
    given = dict(stages.calls)
    assert given["tune"] == {"resume": Path("run/search").absolute()}
    assert "resume" not in given["train"]  # its folder holds nothing yet


def test_every_stage_is_announced_with_its_reason_and_the_time_left(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(0, 10**6, 9))  # the first stage is 9 % of the whole
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    log = Log()
    demo(out="run", display=log)
    lines = [line for line in log.lines if line[1:2] == "/"]
    assert [line.split()[:2] for line in lines] == [
        [f"{number}/6", f"{stage}:"]
        for number, stage in enumerate(
            ("start", "search", "winner", "ensemble", "merge", "query"), 1
        )
    ]
    assert "left" not in lines[0]
    assert lines[1].endswith("; about 01:31 left")  # 9 s for 9 %, 91 % to come
    log.lines.clear()
    demo(out="run", display=log)
    assert not any("left" in line for line in log.lines)  # finished stages are only read


def test_the_shares_of_the_stages_are_a_whole() -> None:
    assert sum(share for _, share in demo_stages._STAGES.values()) == 100
