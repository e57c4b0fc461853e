"""The demo: a search, its winner, and an ensemble, on icons that this machine draws itself."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dmlray.api.ensembles import ensemble, merge
from dmlray.api.run_setup import RUNS, claim, path_of, resume_or_start
from dmlray.api.runs import train
from dmlray.api.searches import tune
from dmlray.cluster.session import session
from dmlray.data.datasets import registry
from dmlray.errors import Call
from dmlray.learn.run import run_training
from dmlray.learn.runtime import whole_machine
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.progress import Display, Shown, shown
from dmlray.scores import Scores

_SEARCH = "searches/rcdml_heads_demo.yaml"
_WHOLE = {"backbone.frozen": False, "budget.epochs": 4}
_MORE_SEEDS = 2
Row = tuple[str, Mapping[str, float]]


@dataclass(frozen=True)
class Demo:
    """What each stage of `dmlray demo` reached.

    Attributes:
        rows: (stage, metrics) on the test classes, in order.
        scores: Of the last stage.
        report: Page of the winner's training.
    """

    rows: list[Row]
    scores: Scores
    folder: RunFolder
    report: Path


def demo(*, out: str | Path | None = None, display: Shown = "auto") -> Demo:
    """Search a method's settings, train the winner and merge an ensemble; resume where it was.

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
        return _demo(run.folder, entered)


@contextmanager
def _images_drawn() -> Iterator[None]:
    """Draw the icons while Ray starts; who needs them waits for the cache's lock."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(registry.load, "demo", None)
        yield


def _demo(folder: RunFolder, display: Display) -> Demo:
    default = read_search(Path(_SEARCH)).experiment
    display.log("1/5  start: RCDML with default settings, heads on features of a frozen network")
    start = _train_here(default, RunFolder(folder.path / "start"), display)
    display.log("2/5  search: 16 settings of these heads on held-out classes, Optuna on Ray Tune")
    found = tune(**_stage(folder, "search", search=_SEARCH), display=display)
    best = read_experiment(found.best).experiment
    heads = _train_here(best, RunFolder(folder.path / "heads"), display)
    display.log("3/5  winner: the whole network with the best settings, on Ray Train")
    new = {"experiment": found.best, "overrides": _WHOLE}
    winner = train(**_stage(folder, "winner", **new), display=display)
    display.log(f"4/5  ensemble: {_MORE_SEEDS} more seeds of the winner, one Ray actor per core")
    members = override(best, "demo", {**_WHOLE, "seed": best.seed + 1})
    more = {"experiments": members, "vary": "seed", "size": _MORE_SEEDS}
    ensemble(**_stage(folder, "ensemble", **more), display=display)
    display.log("5/5  merge: the embeddings of all three side by side")
    runs = [folder.path / name for name in ("winner", "ensemble")]
    merged = merge(**_stage(folder, "merged", runs=runs), display=display)
    assert start.zero_shot is not None
    rows: list[Row] = [
        ("pretrained network", start.zero_shot),
        ("rcdml, default heads", start.metrics),
        ("rcdml, searched heads", heads.metrics),
        ("winner, whole network", winner.scores.metrics),
        ("three seeds merged", merged.scores.metrics),
    ]
    return Demo(rows, merged.scores, folder, winner.folder.report)


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
