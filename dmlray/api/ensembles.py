"""The functions behind `dmlray ensemble` and `dmlray merge`: many learners, one embedding."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dmlray import methods
from dmlray.api.reports import write_run_report
from dmlray.api.run_results import RunResult
from dmlray.api.run_setup import Command, Run, open_run, prepare, run_name
from dmlray.api.teaching import load_teacher, teach
from dmlray.cluster.ensemble import member_queue as members
from dmlray.cluster.ensemble.actor_pool import share_of
from dmlray.cluster.ensemble.merge_actor import EnsembleMerge
from dmlray.cluster.session import session
from dmlray.cluster.warm_caches import fill_caches
from dmlray.errors import ConfigError
from dmlray.learn.runtime import whole_machine
from dmlray.local_paths import path_of
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.config_sources import Overrides, read_overrides
from dmlray.plans.ensemble import Ensemble, Vary, default_vary, read_ensemble
from dmlray.plans.merge import Merge, read_merge
from dmlray.plans.resolve import ExperimentSource, read_experiment
from dmlray.reporting import loggers
from dmlray.reporting.progress import Shown
from dmlray.reporting.run_report import write_ensemble
from dmlray.results import merge_runs

_SIZE = 8  # members of an ensemble, where no number is given
_ENSEMBLE = Command("ensemble", "ensemble", read_ensemble)
_MERGE = Command("merge", "merge", read_merge)


def ensemble(  # noqa: PLR0913  # keywords of the public API, one for each option
    experiments: ExperimentSource | Sequence[ExperimentSource] = (),
    overrides: Overrides = (),
    *,
    method: str | None = None,
    size: int | None = None,
    vary: Vary | None = None,
    members_per_gpu: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    address: str | None = None,
    display: Shown = "auto",
) -> RunResult:
    """Train the members that are missing, merge them, and score every ensemble size.

    Args:
        experiments: A file, its content, or an `Experiment`; several give the members other
            settings in turn.
        overrides: Dotted key -> value, above the experiments' own.
        method: Method, with its demo experiment where `experiments` names none.
        size: Number of members; default 8, or one for each experiment.
        vary: What differs: meta_classes, seed, fold or settings.
        members_per_gpu: Members that share a GPU.
        out: New run folder; default runs/NAME_xSIZE.
        resume: Run folder to go on with; the plan must be the same where it is given again.
        address: Ray cluster to join; default RAY_ADDRESS or a new one.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the run failed.
    """
    files, changes = _listed(experiments), _with_method(overrides, method)

    def new() -> tuple[Ensemble, str]:
        chosen = files or [_demo_of(method)]
        plan = _ensemble_of(chosen, changes, size, vary)
        return plan, f"{run_name(chosen[0], plan.experiment)}_x{plan.size}"

    with open_run(_ENSEMBLE, new, {"out": out}, resume, display) as run:
        if resume:
            _must_agree(run, files, changes, size, vary)
        elif not files:
            run.display.log(f"no experiment given: taking {_demo_of(method)}")
        plans = (run.plan.experiment, *run.plan.others)
        teacher = load_teacher(plans, run.folder)
        settings = [prepare(each, run.display, run.plan.vary == "fold") for each in plans]
        (first, dataset), *others = settings  # all of one data set
        plan = replace(run.plan, experiment=first, others=tuple(other for other, _ in others))
        with session(address, run.display.log) as cluster:
            share = share_of(cluster, members_per_gpu)
            for setting, _ in settings:
                fill_caches(setting, run.display, share.cpus, share.gpus)
            run.start(lambda: plan.write(run.plan_file), dataset, first.seed)
            teach(teacher, dataset, run.folder, run.display)
            merger = EnsembleMerge(plan, run.folder)
            members.train_members(
                plan, run.folder, cluster, members_per_gpu, run.display, merger.on_finished
            )
            scores = merger.finish()
        write_run_report(run.folder, scores, display=run.display)
        return RunResult(scores, run.folder)


def merge(
    runs: str | Path | Sequence[str | Path] = (),
    *,
    weights: Sequence[float] = (),
    pca: int | None = None,
    whiten: bool = False,
    greedy: bool = False,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    display: Shown = "auto",
) -> RunResult:
    """Merge finished runs of any methods that were scored on the same images, in this process.

    Args:
        runs: Folders of trainings and ensembles.
        weights: Factor of each run's cosines; default 1.
        pca: Dimensions to keep, as the training classes say.
        whiten: Give each dimension the same variance.
        greedy: Take members only while they help on validation classes.
        out: New run folder; default runs/merge_NAMES.
        resume: Run folder to go on with, in place of all of the above.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the run failed.
    """
    folders = [path_of("runs", run) for run in _listed(runs)]

    def new() -> tuple[Merge, str]:
        plan = Merge(tuple(folders), tuple(weights), pca, whiten, greedy)
        return plan, f"merge_{'+'.join(run.name for run in plan.runs[:3])}"

    given = {
        "runs": folders,
        "weights": weights,
        "pca": pca,
        "whiten": whiten,
        "greedy": greedy,
        "out": out,
    }
    with open_run(_MERGE, new, given, resume, display) as run:
        merge_runs.check(run.plan)
        chosen = merge_runs.loggers_of(run.plan)
        loggers.check(chosen)
        run.start(lambda: run.plan.write(run.plan_file))
        scores = merge_runs.merge(run.plan, run.folder, whole_machine(), run.display.count)
        write_ensemble(run.folder, scores, chosen)
        write_run_report(run.folder, scores, display=run.display)
        return RunResult(scores, run.folder)


def _listed(given: Any) -> list[Any]:
    """One or several, as a list."""
    several = isinstance(given, Sequence) and not isinstance(given, str)
    return list(given) if several else [given]


def _with_method(overrides: Overrides, method: str | None) -> Overrides:
    """Overrides that first of all name the method."""
    if not method:
        return overrides
    if isinstance(overrides, Mapping):
        return {"method.name": method, **overrides}
    return [f"method.name={method}", *overrides]


def _demo_of(method: str | None) -> Path:
    """The demo experiment of a method.

    Raises:
        ConfigError: If there is no such method.
    """
    if method is None:
        raise ConfigError("`experiments`", ["is missing. Allowed: a file, or a `method`"])
    if method not in methods.names():
        problem = f"unknown method {method!r}.{nearest_or_all(method, methods.names())}"
        raise ConfigError("`method`", [problem])
    return Path("experiments") / f"{method}_demo.yaml"


def _ensemble_of(
    files: Sequence[ExperimentSource], overrides: Overrides, size: int | None, vary: Vary | None
) -> Ensemble:
    first, *others = [read_experiment(file, overrides).experiment for file in files]
    if size is None:
        size = len(files) if others else _SIZE
    return Ensemble(
        first, size, vary or ("settings" if others else default_vary(first)), tuple(others)
    )


def _must_agree(
    run: Run[Ensemble],
    files: Sequence[ExperimentSource],
    overrides: Overrides,
    size: int | None,
    vary: Vary | None,
) -> None:
    """Check that what is given again to a resumed ensemble is what it was begun with."""
    plan = run.plan
    size, vary = plan.size if size is None else size, vary or plan.vary
    if files:
        asked = _ensemble_of(files, overrides, size, vary)
    else:
        given = read_ensemble(run.plan_file, [read_overrides(overrides)])
        asked = replace(given, size=size, vary=vary)
    strange = plan.differences(asked)
    if strange:
        allowed = "Allowed: the settings that it was begun with, or a new folder (`out`)"
        raise ConfigError(str(run.folder), [f"was begun with {', '.join(strange)}. {allowed}"])
