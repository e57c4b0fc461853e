"""Search, train, forecast, look: the functions behind most commands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dmlray.api.averages import repeat
from dmlray.api.ensembles import ensemble, merge
from dmlray.api.run_setup import (
    RUNS,
    Run,
    open_resumed,
    open_run,
    prepare,
    require_file,
    resume_or_start,
    run_name,
)
from dmlray.cluster import forecast as forecasting
from dmlray.cluster import train as cluster_train
from dmlray.cluster.doctor import Check, examine
from dmlray.cluster.ensemble.merge_actor import merge_members
from dmlray.cluster.forecast import Forecast
from dmlray.cluster.search import run as searching
from dmlray.cluster.search.study_checks import read_study
from dmlray.cluster.session import session
from dmlray.cluster.warm_caches import fill_caches
from dmlray.errors import ConfigError
from dmlray.evaluation import clustering
from dmlray.learn.class_split import load_dataset
from dmlray.learn.environment import check_images
from dmlray.learn.run import evaluate as evaluate_run
from dmlray.learn.runtime import whole_machine
from dmlray.learn.space_preflight import preflight_space
from dmlray.plans.ensemble import Ensemble, read_ensemble
from dmlray.plans.resolve import Resolved, read_experiment, write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search, is_search, read_search
from dmlray.reporting.progress import Display, SilentDisplay
from dmlray.reporting.search_report import SearchReport
from dmlray.results.averages import score_members
from dmlray.scores import Scores


def train(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Train one experiment on Ray Train and score it on the classes never seen."""
    display = display or SilentDisplay()
    if resume:
        folder = open_resumed(
            resume, "experiment", {"file": file, "overrides": overrides, "--out": out}
        )
        plan = read_experiment(folder.plan("experiment")).experiment
    else:
        plan = read_experiment(require_file(file), overrides).experiment
        folder = RunFolder(out or RUNS / run_name(require_file(file)))
    with open_run(folder, "dmlray train --resume", resumed=bool(resume)) as run:
        plan, dataset = prepare(plan, display)
        with session(address) as cluster:
            cpus, gpu = cluster_train.resources_of(plan, cluster)  # before anything is decoded
            fill_caches(plan, display, cpus, gpu)
            path = folder.plan("experiment")
            run.start(lambda: write_experiment(path, plan), dataset, plan.seed)
            return cluster_train.train(plan, run.folder, cluster, display), folder


def tune(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[SearchReport, RunFolder]:
    """Search hyperparameters; write the winner as `best.yaml`, a legal experiment, and repeat it.

    Only the repeats, where the search asks for some, open the test classes: after the search, and
    not where `Findings.failure` says that most of its trials failed.
    """
    display = display or SilentDisplay()
    if resume:
        folder = open_resumed(
            resume, "search", {"file": file, "overrides": overrides, "--out": out}
        )
        plan = read_search(folder.plan("search"))
    else:
        plan = read_search(require_file(file), overrides)
        folder = RunFolder(out or RUNS / run_name(require_file(file)))
    with open_run(folder, "dmlray tune --resume", resumed=bool(resume)) as run:
        if resume:
            read_study(plan, folder)
        return _search(run, plan, address, display), folder


def _search(run: Run, plan: Search, address: str | None, display: Display) -> SearchReport:
    """Run the trials that are missing, and train the winner as often as the search asks for."""
    folder = run.folder
    experiment, dataset = prepare(plan.experiment, display, folds=True)
    plan = replace(plan, experiment=experiment)
    preflight_space(plan, dataset)
    with session(address) as cluster:
        resources = searching.resources_of(plan, cluster)
        fill_caches(plan.experiment, display, resources.cpus, resources.gpus)
        run.start(lambda: plan.write(folder.plan("search")), dataset, plan.experiment.seed)
        report = searching.search(plan, folder, resources, display)
        best = report.best
        assert best is not None  # else the search has said so
        score, trials = best.metrics[plan.metrics[0]], len(report.trained)
        plan.write_winner(folder.best, best.number, best.values, score, trials)
        if plan.settings.repeats and not report.failure:
            new = {"file": folder.best, "size": plan.settings.repeats}
            repeat(**resume_or_start(folder.repeat.path, **new), display=display)
    return report


def forecast(
    file: Path,
    overrides: Sequence[str] = (),
    *,
    address: str | None = None,
    display: Display | None = None,
) -> Forecast:
    """What the search or experiment in `file` will take here; checks all and leaves no trace."""
    display = display or SilentDisplay()
    probing = "probing a few steps, in a process of its own"
    if is_search(file):
        search = read_search(file, overrides)
        experiment, dataset = prepare(search.experiment, display, folds=True)
        search = replace(search, experiment=experiment)
        preflight_space(search, dataset)
        with session(address) as cluster:
            display.log(probing)
            return forecasting.of_search(search, dataset, cluster)
    plan = read_experiment(file, overrides).experiment
    plan, dataset = prepare(plan, display)
    with session(address) as cluster:
        display.log(probing)
        return forecasting.of_experiment(plan, dataset, cluster)


def evaluate(run: Path, display: Display | None = None) -> Scores:
    """Score a finished run again from its files, in this process."""
    counting = (display or SilentDisplay()).count(clustering.COUNTED)
    folder = RunFolder(run)
    match folder.kind():
        case "experiment":
            plan = read_experiment(folder.plan("experiment")).experiment
            return evaluate_run(plan, folder, whole_machine(), counting)
        case "merge":
            return merge(resume=run)[0]
        case "ensemble" | "cross_validation" | "repeat" as kind:
            with open_run(folder, "dmlray evaluate", resumed=True) as opened:
                return _score(read_ensemble(folder.plan(kind)), kind, opened)
        case _:
            raise ConfigError(str(run), [f"is a search. Allowed: dmlray train {folder.best}"])


def _score(plan: Ensemble, kind: str, run: Run) -> Scores:
    """Score finished members from their files."""
    check_images(run.folder, load_dataset(plan.experiment))
    if kind != "ensemble":
        return score_members(plan, run.folder)
    with session():
        return merge_members(plan, run.folder)


@dataclass(frozen=True)
class Demo:
    """What `dmlray demo` found, stage by stage."""

    trained: Scores
    merged: Scores
    folder: RunFolder


def demo(*, out: Path | None = None, display: Display | None = None) -> Demo:
    """Search, train the winner and merge an ensemble on the demo set; goes on where it was."""
    display = display or SilentDisplay()
    folder = RunFolder(out or RUNS / "demo")
    root, begun = folder.path, folder.is_started()
    with open_run(folder, "dmlray demo --out", resumed=begun) as run, session():
        run.start()
        search = root / "search"
        display.log("1/3  search: proxy_anchor, class-disjoint folds, Optuna and ASHA on Ray Tune")
        _, found = tune(
            **resume_or_start(search, file=Path("searches/proxy_anchor_demo.yaml")), display=display
        )
        display.log("2/3  train: the winner, on all training classes, on Ray Train")
        trained, _ = train(**resume_or_start(root / "winner", file=found.best), display=display)
        display.log("3/3  ensemble: DREML, one actor per core, merged")
        dreml = Path("experiments/dreml_demo.yaml")
        new = {"experiments": [dreml], "overrides": ["budget.epochs=2"], "size": 8}
        merged, _ = ensemble(**resume_or_start(root / "dreml", **new), display=display)
    return Demo(trained, merged, folder)


def show(file: Path, overrides: Sequence[str] = ()) -> Resolved:
    """Each value of an experiment, and who said it."""
    return read_experiment(file, overrides)


def doctor(
    address: str | None = None, *, root: Path | None = None, out: Path | None = None
) -> Iterator[Check]:
    """Check this machine and every node of the cluster, one thing at a time."""
    return examine(address, root, out or RUNS)
