"""The functions behind `dmlray cv` and `dmlray repeat`: one setting, trained several times."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dmlray.api.run_setup import RUNS, Run, open_resumed, open_run, prepare, require_file, run_name
from dmlray.cluster.ensemble import member_queue as members
from dmlray.cluster.ensemble.actor_pool import share_of
from dmlray.cluster.session import session
from dmlray.cluster.warm_caches import fill_caches
from dmlray.data.dataset import Dataset
from dmlray.plans.ensemble import Ensemble, cross_validation, read_ensemble, repeats
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display, SilentDisplay
from dmlray.results.averages import score_members
from dmlray.scores import Scores

_SIZE = 5  # trainings of `repeat`, where no number is given


def cross_validate(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    members_per_gpu: int = 1,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Train the folds of one setting side by side; score them on the test classes."""
    display = display or SilentDisplay()
    if resume:
        folder = open_resumed(
            resume, "cross_validation", {"file": file, "overrides": overrides, "--out": out}
        )
        plan = read_ensemble(folder.plan("cross_validation"))
        experiment = plan.experiment
    else:
        experiment = read_experiment(require_file(file), overrides).experiment
        folder = RunFolder(out or RUNS / f"{run_name(require_file(file))}_cv")
    with open_run(folder, "dmlray cv --resume", resumed=bool(resume)) as run:
        experiment, dataset = prepare(experiment, display, folds=True)
        if not resume:
            plan = cross_validation(experiment)
        path = folder.plan("cross_validation")
        scores = _averaged(run, path, plan, dataset, members_per_gpu, address, display)
    return scores, folder


def repeat(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    size: int | None = None,
    members_per_gpu: int = 1,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Train one setting `size` times with new seeds and average the scores on the test classes.

    A search's `best.yaml` says `selection: last` and the search's own `budget.epochs`: its trials
    were compared by their scores after just these, so nothing is chosen anew.
    """
    display = display or SilentDisplay()
    if resume:
        folder = open_resumed(
            resume,
            "repeat",
            {"file": file, "overrides": overrides, "--repeats": size, "--out": out},
        )
        plan = read_ensemble(folder.plan("repeat"))
    else:
        size = _SIZE if size is None else size
        plan = repeats(read_experiment(require_file(file), overrides).experiment, size)
        folder = RunFolder(out or RUNS / f"{run_name(require_file(file))}_repeat")
    with open_run(folder, "dmlray repeat --resume", resumed=bool(resume)) as run:
        experiment, dataset = prepare(plan.experiment, display)
        plan, path = replace(plan, experiment=experiment), folder.plan("repeat")
        scores = _averaged(run, path, plan, dataset, members_per_gpu, address, display)
    return scores, folder


def _averaged(
    run: Run,
    path: Path,
    plan: Ensemble,
    dataset: Dataset,
    members_per_gpu: int,
    address: str | None,
    display: Display,
) -> Scores:
    """Train the members that are missing and average all; a new run keeps its plan in `path`."""
    with session(address) as cluster:
        share = share_of(cluster, members_per_gpu)
        fill_caches(plan.experiment, display, share.cpus, share.gpus)
        run.start(lambda: plan.write(path), dataset, plan.experiment.seed)
        members.train_members(plan, run.folder, cluster, members_per_gpu, display)
        return score_members(plan, run.folder)
