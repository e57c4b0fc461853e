"""The demo: a search, its winner, an ensemble and queries, on icons that this machine draws."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmlray.api.demo_queries import query_icons
from dmlray.api.ensembles import ensemble, merge
from dmlray.api.run_setup import RUNS, claim, resume_or_start
from dmlray.api.runs import train
from dmlray.api.searches import tune
from dmlray.cluster.session import session
from dmlray.data.datasets import registry
from dmlray.errors import Call
from dmlray.learn.run import run_training
from dmlray.learn.runtime import whole_machine
from dmlray.learn.shared_features import sharing_features
from dmlray.local_paths import path_of
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.progress import Display, Shown, minutes, shown
from dmlray.scores import Scores

_SEARCH = "searches/rcdml_heads_demo.yaml"
_WHOLE = {"backbone.frozen": False, "budget.epochs": 3}
_MORE_SEEDS = 2
_STAGES = {  # what each does and why, and its share of the time in percent
    "start": ("train heads with default settings, to know what tuning gains", 9),
    "search": ("try head settings on held-out classes (Ray Tune)", 23),
    "winner": ("train the whole network with the best (Ray Train)", 28),
    "ensemble": ("train two more seeds, one Ray actor a core", 32),
    "merge": ("join the three embeddings: members err differently", 1),
    "query": ("find the nearest icons with the exported model", 7),
}
Row = tuple[str, Mapping[str, float]]


@dataclass(frozen=True)
class Demo:
    """What each stage of `dmlray demo` reached.

    Attributes:
        rows: (stage, metrics) on the test classes, in order.
        scores: Of the merged networks.
        report: Page of the winner's training.
        queries: Page of icons of unseen classes with their nearest others.
        model: The exported model.
    """

    rows: list[Row]
    scores: Scores
    folder: RunFolder
    report: Path
    queries: Path
    model: Path


def demo(*, out: str | Path | None = None, display: Shown = "auto") -> Demo:
    """Search a method's settings, train the winner, merge an ensemble, query it; resume it.

    Args:
        out: Run folder; default runs/demo.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If the folder cannot be used, or a stage failed.
    """
    folder = RunFolder(path_of("out", out or RUNS / "demo"))
    started, call = folder.is_started(), Call("demo", {"out": str(folder)})
    with (
        shown(display) as entered,
        claim(folder, call, resumed=started) as run,
        _images_drawn(),
        session(log=entered.log),
    ):
        run.start()
        with sharing_features(run.folder):
            return _demo(run.folder, entered, _Announced(entered, timed=not started))


@contextmanager
def _images_drawn() -> Iterator[None]:
    """Draw the icons while Ray starts; who needs them waits for the cache's lock."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(registry.load, "demo", None)
        yield


class _Announced:
    """Logs each stage as it begins, with the time left, from how long the stages before took.

    Not `timed` where stages are only read, which would seem quick.
    """

    def __init__(self, display: Display, timed: bool) -> None:
        self._display, self._timed = display, timed
        self._began = time.monotonic()

    def __call__(self, stage: str) -> None:
        names, shares = list(_STAGES), [share for _, share in _STAGES.values()]
        number = names.index(stage)
        line = f"{number + 1}/{len(names)} {stage}: {_STAGES[stage][0]}"
        if self._timed and number:
            taken = (time.monotonic() - self._began) / sum(shares[:number])
            line += f"; about {minutes(taken * sum(shares[number:]))} left"
        self._display.log(line)


def _demo(folder: RunFolder, display: Display, begin: _Announced) -> Demo:
    begin("start")
    default = read_search(Path(_SEARCH)).experiment
    start = _train_here(default, RunFolder(folder.path / "start"), display)
    begin("search")
    found = tune(**_stage(folder, "search", search=_SEARCH), display=display)
    best = read_experiment(found.best).experiment
    heads = _train_here(best, RunFolder(folder.path / "heads"), display)
    begin("winner")
    new = {"experiment": found.best, "overrides": _WHOLE}
    winner = train(**_stage(folder, "winner", **new), display=display)
    begin("ensemble")
    members = override(best, "demo", {**_WHOLE, "seed": best.seed + 1})
    more = {"experiments": members, "vary": "seed", "size": _MORE_SEEDS}
    ensemble(**_stage(folder, "ensemble", **more), display=display)
    begin("merge")
    runs = [folder.path / name for name in ("winner", "ensemble")]
    merged = merge(**_stage(folder, "merged", runs=runs), display=display)
    begin("query")
    page, model = query_icons(merged.folder, folder, best, display)
    assert start.zero_shot is not None
    rows: list[Row] = [
        ("pretrained network", start.zero_shot),
        ("rcdml, default heads", start.metrics),
        ("rcdml, searched heads", heads.metrics),
        ("winner, whole network", winner.scores.metrics),
        ("three seeds merged", merged.scores.metrics),
    ]
    return Demo(rows, merged.scores, folder, winner.folder.report, page, model)


def _stage(folder: RunFolder, name: str, **new: Any) -> dict[str, Any]:
    return resume_or_start(folder.path / name, **new)


def _train_here(plan: Experiment, folder: RunFolder, display: Display) -> Scores:
    """Train heads in this process, which takes seconds; a finished folder is only read."""
    epochs = display.count("heads, epochs")
    return run_training(
        plan,
        folder,
        lambda epoch: epochs(epoch.number, plan.budget.epochs),
        whole_machine(),
    )
