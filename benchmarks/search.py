"""What a search costs beside its trainings: trials of a job that does nothing.

Run it from the repository: `python benchmarks/search.py`. The last lines, `RATIO name value`, are
seconds per trial, times Ray Tune with the same function (as it comes, bare of its loggers, and
with a study that one would add by hand), and MB of the driver. All take turns, after one search
that is not counted.
It fails on wrong values and never on slow ones.
"""

import json
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import optuna
import torch
from optuna.distributions import FloatDistribution
from optuna.samplers import RandomSampler
from optuna.storages import RDBStorage
from ray import tune
from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback, TBXLoggerCallback
from ray.tune.search.optuna import OptunaSearch

from dmlray.cluster.search.run import Resources, search
from dmlray.cluster.session import session
from dmlray.learn import metrics_log
from dmlray.learn.loop import Epoch
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.progress import SilentDisplay

TRIALS, AT_ONCE, ROUNDS = 200, 2, 3
SEARCH = Path("searches/proxy_anchor_demo.yaml")
MARGIN = {"margin": tune.uniform(0.0, 0.4)}
LOGGERS = (CSVLoggerCallback, JsonLoggerCallback, TBXLoggerCallback)  # Tune adds them by itself
FRESH = [0.5]  # seconds; each process has its own
WORDS = ["budget.epochs=1", "scheduler=none", "sampler=random"]


def empty(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Iterator[Epoch]:
    """A job of one epoch whose score is the margin, so that the best trial is known.

    The first in a process takes its time: where it ends before the next process is up, Ray Tune
    gives that process's trial to this one and starts another, again and again, of all contestants.
    """
    if FRESH:
        time.sleep(FRESH.pop())
    metrics = {"map_at_r": float(getattr(plan.method.config, "margin"))}  # noqa: B009
    metrics_log.rewind(folder.metrics, 0)
    metrics_log.append(folder.metrics, {"epoch": 1, **metrics})
    yield Epoch(1, metrics)


def ours(folder: Path, trials: int = TRIALS) -> float:
    """Seconds of a search of dmlray."""
    folder.mkdir()
    plan, begun = read_search(SEARCH, [*WORDS, f"trials={trials}"]), time.perf_counter()
    report = search(
        plan, RunFolder(folder), Resources(1.0, 0.0, 1, AT_ONCE), SilentDisplay(), empty
    )
    seconds = time.perf_counter() - begun
    assert len(report.rows) == trials, f"{len(report.rows)} trials instead of {trials}"
    margins = [row.values["method.margin"] for row in report.rows]
    assert report.best is not None
    assert report.best.values["method.margin"] == max(margins)
    assert len(json.loads((folder / "trials.json").read_text())["trials"]) == trials
    return seconds


def alone(folder: Path, trials: int = TRIALS) -> float:
    """Seconds of Ray Tune without dmlray, as it comes: it draws the points and keeps its logs."""
    return tuned(folder, trials, "alone", MARGIN, None, [logger() for logger in LOGGERS])


def bare(folder: Path, trials: int = TRIALS) -> float:
    """Seconds of Ray Tune with its loggers off, which then keeps nothing that one could look at."""
    return tuned(folder, trials, "bare", MARGIN)


def by_hand(folder: Path, trials: int = TRIALS) -> float:
    """Seconds of Ray Tune as it comes, with what one would add: a study of Optuna's on disk."""
    folder.mkdir()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = OptunaSearch(
        {"margin": FloatDistribution(0.0, 0.4)},
        metric="map_at_r",
        mode="max",
        sampler=RandomSampler(seed=0),
        study_name="by_hand",
        storage=RDBStorage(f"sqlite:///{folder / 'study.db'}"),
    )
    return tuned(folder, trials, "by_hand", None, search, [logger() for logger in LOGGERS])


def tuned(
    folder: Path,
    trials: int,
    name: str,
    space: dict[str, Any] | None,
    search: OptunaSearch | None = None,
    callbacks: Sequence[tune.Callback] = (),
) -> float:
    """Seconds of a search by Ray Tune itself."""
    plan = read_search(SEARCH, WORDS)

    def trial(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        runtime = RunFolder(folder / uuid.uuid4().hex)
        experiment = plan.point({"method.margin": config["margin"]})
        for epoch in empty(experiment, runtime, Runtime(torch.device("cpu"))):
            yield {"epoch": epoch.number, **epoch.metrics}

    begun = time.perf_counter()
    results = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(
            search_alg=search, num_samples=trials, max_concurrent_trials=AT_ONCE, reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name=name, storage_path=str(folder), verbose=0, callbacks=list(callbacks)
        ),
    ).fit()
    assert len(results) == trials
    assert not results.errors
    return time.perf_counter() - begun


def private_mb() -> float:
    """Memory that this process shares with no other: code of libraries is not counted."""
    rollup = Path("/proc/self/smaps_rollup")
    if not rollup.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes, on macOS
    lines = [line.split() for line in rollup.read_text().splitlines()]
    return sum(int(words[1]) for words in lines if words[0].startswith("Private_Dirty")) / 1024


def main() -> None:
    """Print a table, then the ratios."""
    contestants = {"Ray Tune alone": alone, "bare": bare, "by hand": by_hand, "dmlray": ours}
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory() as temporary, session():
        folder = Path(temporary)
        before = private_mb()
        ours(folder / "first")
        memory = private_mb()
        for number in range(ROUNDS):
            for name, contestant in contestants.items():
                seconds[name].append(contestant(folder / f"{name}{number}"))
    middle = {name: median(taken) for name, taken in seconds.items()}
    print(f"{f'seconds of {TRIALS} trials':<24}{'all':>8}{'a trial':>9}   from, to")
    for name, taken in seconds.items():
        spread = f"{min(taken):.1f}, {max(taken):.1f}"
        print(f"{name:<24}{middle[name]:>8.1f}{middle[name] / TRIALS:>9.3f}   {spread}")
    print(
        f"{AT_ONCE} at once, {ROUNDS} rounds; bare: no logs; by hand: OptunaSearch on SQLite, too"
    )
    print(f"the driver had {before:.0f} MB of its own before {TRIALS} trials, {memory:.0f} after")
    print(f"RATIO search_seconds_per_trial {middle['dmlray'] / TRIALS:.3f}")
    print(f"RATIO search_against_tune_alone {middle['dmlray'] / middle['Ray Tune alone']:.3f}")
    print(f"RATIO search_against_bare {middle['dmlray'] / middle['bare']:.3f}")
    print(f"RATIO search_against_by_hand {middle['dmlray'] / middle['by hand']:.3f}")
    print(f"RATIO search_driver_mb {memory:.0f}")
    print(f"RATIO search_driver_mb_of_trials {memory - before:.0f}")


if __name__ == "__main__":
    main()
