"""The functions behind `dmlray cv` and `dmlray repeat`: one setting, trained several times."""

from dataclasses import replace
from pathlib import Path

from dmlray.api.reports import write_run_report
from dmlray.api.run_results import RunResult
from dmlray.api.run_setup import Command, Run, open_run, prepare, run_name
from dmlray.api.teaching import load_teacher, teach
from dmlray.cluster.ensemble import member_queue as members
from dmlray.cluster.ensemble.actor_pool import share_of
from dmlray.cluster.session import session
from dmlray.cluster.warm_caches import fill_caches
from dmlray.data.dataset import Dataset
from dmlray.plans.config_sources import Overrides
from dmlray.plans.ensemble import Ensemble, cross_validation, read_ensemble, repeats
from dmlray.plans.resolve import ExperimentSource, read_experiment
from dmlray.reporting.progress import Shown
from dmlray.results.averages import score_members
from dmlray.scores import Scores

_SIZE = 5  # trainings of `repeat`, where no number is given
_CROSS_VALIDATE = Command("cross_validate", "cross_validation", read_ensemble)
_REPEAT = Command("repeat", "repeat", read_ensemble)


def cross_validate(
    experiment: ExperimentSource | None = None,
    overrides: Overrides = (),
    *,
    members_per_gpu: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    address: str | None = None,
    display: Shown = "auto",
) -> RunResult:
    """Train the folds of one experiment side by side; score them on the test classes.

    Args:
        experiment: A file, its content, or an `Experiment`.
        overrides: Dotted key -> value, above the experiment's own.
        members_per_gpu: Folds that share a GPU.
        out: New run folder; default runs/NAME_cv.
        resume: Run folder to go on with, in place of all of the above.
        address: Ray cluster to join; default RAY_ADDRESS or a new one.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the run failed.
    """

    def new() -> tuple[Ensemble, str]:
        plan = read_experiment(experiment, overrides).experiment
        return cross_validation(plan), f"{run_name(experiment, plan)}_cv"

    given = {"experiment": experiment, "overrides": overrides, "out": out}
    with open_run(_CROSS_VALIDATE, new, given, resume, display) as run:
        setting, dataset = prepare(run.plan.experiment, run.display, folds=True)
        plan = run.plan if resume else cross_validation(setting)
        scores = _averaged(run, plan, dataset, members_per_gpu, address)
        write_run_report(run.folder, scores, display=run.display)
        return RunResult(scores, run.folder)


def repeat(
    experiment: ExperimentSource | None = None,
    overrides: Overrides = (),
    *,
    size: int | None = None,
    members_per_gpu: int = 1,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    address: str | None = None,
    display: Shown = "auto",
) -> RunResult:
    """Train one experiment `size` times with new seeds and average the scores on the test classes.

    A search's `best.yaml` has `selection: last` and the search's own `budget.epochs`: its trials
    were compared by their scores after just these, so nothing is chosen anew.

    Args:
        experiment: A file, its content, or an `Experiment`.
        overrides: Dotted key -> value, above the experiment's own.
        size: Number of trainings; default 5.
        members_per_gpu: Trainings that share a GPU.
        out: New run folder; default runs/NAME_repeat.
        resume: Run folder to go on with, in place of all of the above.
        address: Ray cluster to join; default RAY_ADDRESS or a new one.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the run failed.
    """

    def new() -> tuple[Ensemble, str]:
        plan = read_experiment(experiment, overrides).experiment
        return repeats(
            plan, _SIZE if size is None else size
        ), f"{run_name(experiment, plan)}_repeat"

    given = {"experiment": experiment, "overrides": overrides, "size": size, "out": out}
    with open_run(_REPEAT, new, given, resume, display) as run:
        setting, dataset = prepare(run.plan.experiment, run.display)
        plan = replace(run.plan, experiment=setting)
        scores = _averaged(run, plan, dataset, members_per_gpu, address)
        write_run_report(run.folder, scores, display=run.display)
        return RunResult(scores, run.folder)


def _averaged(
    run: Run[Ensemble], plan: Ensemble, dataset: Dataset, members_per_gpu: int, address: str | None
) -> Scores:
    """Train the members that are missing and average all; a new run keeps its plan."""
    teacher = load_teacher([plan.experiment], run.folder)
    with session(address, run.display.log) as cluster:
        share = share_of(cluster, members_per_gpu)
        fill_caches(plan.experiment, run.display, share.cpus, share.gpus)
        run.start(lambda: plan.write(run.plan_file), dataset, plan.experiment.seed)
        teach(teacher, dataset, run.folder, run.display)
        members.train_members(plan, run.folder, cluster, members_per_gpu, run.display)
        return score_members(plan, run.folder)
