"""The functions behind `dmlray cv` and `dmlray repeat`: one setting, trained several times."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dmlray.api.begin import RUNS, needed, prepare, resumable, resumed, run_name
from dmlray.cluster import ensemble as members
from dmlray.cluster.caches import fill_caches
from dmlray.cluster.session import session
from dmlray.cluster.slots import share_of
from dmlray.learn.averages import score_members
from dmlray.learn.scores import Scores
from dmlray.plans.ensemble import Ensemble, cross_validation, read_ensemble, repeats
from dmlray.plans.files import read_experiment
from dmlray.plans.folder import RunFolder
from dmlray.reporting.display import Display, Silent

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
    display = display or Silent()
    if resume:
        folder = resumed(
            resume, "cross_validation", {"file": file, "overrides": overrides, "--out": out}
        )
        plan = read_ensemble(folder.plan("cross_validation"))
        prepare(plan.experiment, display, folds=True)
    else:
        experiment = read_experiment(needed(file), overrides).experiment
        folder = RunFolder(out or RUNS / f"{run_name(needed(file))}_cv")
        folder.must_be_new()
        plan = cross_validation(prepare(experiment, display, folds=True)[0])
    scores = _averaged("cross_validation", "cv", plan, folder, members_per_gpu, address, display)
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
    display = display or Silent()
    if resume:
        folder = resumed(
            resume,
            "repeat",
            {"file": file, "overrides": overrides, "--repeats": size, "--out": out},
        )
        plan = read_ensemble(folder.plan("repeat"))
    else:
        size = _SIZE if size is None else size
        plan = repeats(read_experiment(needed(file), overrides).experiment, size)
        folder = RunFolder(out or RUNS / f"{run_name(needed(file))}_repeat")
        folder.must_be_new()
    plan = replace(plan, experiment=prepare(plan.experiment, display)[0])
    scores = _averaged("repeat", "repeat", plan, folder, members_per_gpu, address, display)
    return scores, folder


def _averaged(
    kind: str,
    command: str,
    plan: Ensemble,
    folder: RunFolder,
    members_per_gpu: int,
    address: str | None,
    display: Display,
) -> Scores:
    """Train the members that are missing and average all."""
    if not folder.plan(kind).exists():
        folder.claim()
        plan.write(folder.plan(kind))
    with resumable(f"dmlray {command} --resume", folder), session(address) as cluster:
        share = share_of(cluster, members_per_gpu)
        fill_caches(plan.experiment, display, share.cpus, share.gpus)
        members.train_members(plan, folder, cluster, members_per_gpu, display)
        return score_members(plan, folder)
