"""What a search costs beside its trainings: trials of a job that does nothing.

Run it from the repository: `python benchmarks/search.py`. The last lines, `RATIO name value`, are
seconds per trial, times Ray Tune alone with the same function, and MB of the driver.
It fails on wrong values and never on slow ones.
"""

import json
import resource
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from ray import tune

from dmlray.cluster.search import Resources, search
from dmlray.cluster.session import session
from dmlray.learn import journal
from dmlray.learn.loop import Epoch
from dmlray.learn.training import Place
from dmlray.plans.experiment import Experiment
from dmlray.plans.folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.display import Silent

TRIALS, AT_ONCE = 200, 2
SEARCH = Path("searches/proxy_anchor_demo.yaml")
WORDS = [f"trials={TRIALS}", "budget.epochs=1", "scheduler=none", "sampler=random"]


def empty(plan: Experiment, folder: RunFolder, place: Place) -> Iterator[Epoch]:
    """A job of one epoch whose score is the margin, so that the best trial is known."""
    metrics = {"map_at_r": float(getattr(plan.method.config, "margin"))}  # noqa: B009
    journal.rewind(folder.metrics, 0)
    journal.append(folder.metrics, {"epoch": 1, **metrics})
    yield Epoch(1, metrics)


def ours(folder: Path) -> float:
    """Seconds of a search of dmlray."""
    folder.mkdir()
    plan, begun = read_search(SEARCH, WORDS), time.perf_counter()
    findings = search(plan, RunFolder(folder), Resources(1.0, 0.0, 1, AT_ONCE), Silent(), empty)
    seconds = time.perf_counter() - begun
    assert len(findings.rows) == TRIALS, f"{len(findings.rows)} trials instead of {TRIALS}"
    margins = [row.values["method.margin"] for row in findings.rows]
    assert findings.best is not None and findings.best.values["method.margin"] == max(margins)
    assert len(json.loads((folder / "trials.json").read_text())["trials"]) == TRIALS
    return seconds


def alone(folder: Path) -> float:
    """Seconds of Ray Tune without dmlray: the same job at points that Tune draws."""
    plan = read_search(SEARCH, WORDS)

    def trial(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        place = RunFolder(folder / uuid.uuid4().hex)
        experiment = plan.point({"method.margin": config["margin"]})
        for epoch in empty(experiment, place, Place(torch.device("cpu"))):
            yield {"epoch": epoch.number, **epoch.metrics}

    begun = time.perf_counter()
    results = tune.Tuner(
        tune.with_resources(trial, {"cpu": 1}),
        param_space={"margin": tune.uniform(0.0, 0.4)},
        tune_config=tune.TuneConfig(
            num_samples=TRIALS, max_concurrent_trials=AT_ONCE, reuse_actors=True
        ),
        run_config=tune.RunConfig(name="alone", storage_path=str(folder), verbose=0),
    ).fit()
    assert len(results) == TRIALS and not results.errors
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
    with tempfile.TemporaryDirectory() as folder, session():
        before = private_mb()
        full = ours(Path(folder) / "ours")
        memory = private_mb()
        bare = alone(Path(folder) / "alone")
    print(f"{'':<24}{'all, s':>8}{'a trial, s':>12}")
    for name, seconds in (("Ray Tune alone", bare), ("dmlray", full)):
        print(f"{name:<24}{seconds:>8.1f}{seconds / TRIALS:>12.3f}")
    print(f"{TRIALS} trials, {AT_ONCE} at once; the driver had {before:.0f} MB of its own before")
    print(f"RATIO search_seconds_per_trial {full / TRIALS:.3f}")
    print(f"RATIO search_against_tune_alone {full / bare:.3f}")
    print(f"RATIO search_driver_mb {memory:.0f}")
    print(f"RATIO search_driver_mb_of_trials {memory - before:.0f}")


if __name__ == "__main__":
    main()
