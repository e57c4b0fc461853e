"""The functions behind `dmlray ensemble` and `dmlray merge`: many learners, one embedding."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dmlray.api.run_setup import RUNS, experiment_of, open_resumed, open_run, prepare, run_name
from dmlray.cluster.ensemble import member_queue as members
from dmlray.cluster.ensemble.actor_pool import share_of
from dmlray.cluster.ensemble.merge_actor import EnsembleMerge
from dmlray.cluster.session import session
from dmlray.cluster.warm_caches import fill_caches
from dmlray.errors import ConfigError
from dmlray.learn.runtime import whole_machine
from dmlray.plans.config_sources import read_overrides
from dmlray.plans.ensemble import Ensemble, Vary, default_vary, read_ensemble
from dmlray.plans.merge import Merge, read_merge
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display, SilentDisplay
from dmlray.reporting.run_report import write_ensemble
from dmlray.results import merge_runs
from dmlray.scores import Scores

_SIZE = 8  # members of an ensemble, where nobody says how many


def ensemble(
    experiments: Sequence[Path] = (),
    overrides: Sequence[str] = (),
    *,
    method: str | None = None,
    size: int | None = None,
    vary: Vary | None = None,
    members_per_gpu: int = 1,
    out: Path | None = None,
    resume: Path | None = None,
    address: str | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Train the members that are missing, merge them, and score every ensemble size."""
    display = display or SilentDisplay()
    if resume:
        folder = open_resumed(resume, "ensemble", {"--out": out})
        plan = read_ensemble(folder.plan("ensemble"))
        _must_agree(folder, plan, experiments, overrides, method, size, vary)
    else:
        files = experiments or [experiment_of(method, display)]
        plan = _ensemble_of(files, overrides, method, size, vary)
        folder = RunFolder(out or RUNS / f"{run_name(files[0])}_x{plan.size}")
    with open_run(folder, "dmlray ensemble --resume", resumed=bool(resume)) as run:
        settings = [
            prepare(each, display, plan.vary == "fold") for each in (plan.experiment, *plan.others)
        ]
        (first, dataset), *others = settings  # all of one data set
        plan = replace(plan, experiment=first, others=tuple(other for other, _ in others))
        with session(address) as cluster:
            share = share_of(cluster, members_per_gpu)
            for setting, _ in settings:
                fill_caches(setting, display, share.cpus, share.gpus)
            run.start(lambda: plan.write(folder.plan("ensemble")), dataset, first.seed)
            merger = EnsembleMerge(plan, run.folder)
            members.train_members(
                plan, run.folder, cluster, members_per_gpu, display, merger.on_finished
            )
            return merger.finish(), folder


def merge(
    runs: Sequence[Path] = (),
    *,
    weights: Sequence[float] = (),
    pca: int | None = None,
    whiten: bool = False,
    greedy: bool = False,
    out: Path | None = None,
    resume: Path | None = None,
    display: Display | None = None,
) -> tuple[Scores, RunFolder]:
    """Merge finished runs of any methods that were scored on the same images, in this process."""
    display = display or SilentDisplay()
    if resume:
        folder = open_resumed(
            resume,
            "merge",
            {
                "RUN": runs,
                "--weights": weights,
                "--pca": pca is not None,
                "--whiten": whiten,
                "--greedy": greedy,
                "--out": out,
            },
        )
        plan = read_merge(folder.plan("merge"))
    else:
        plan = Merge(tuple(runs), tuple(weights), pca, whiten, greedy)
        name = "+".join(run.name for run in plan.runs[:3])
        folder = RunFolder(out or RUNS / f"merge_{name}")
    with open_run(folder, "dmlray merge --resume", resumed=bool(resume)) as run:
        merge_runs.check(plan)
        run.start(lambda: plan.write(folder.plan("merge")))
        scores = merge_runs.merge(plan, run.folder, whole_machine(), display.count)
        write_ensemble(run.folder, scores)
        return scores, folder


def _ensemble_of(
    files: Sequence[Path],
    overrides: Sequence[str],
    method: str | None,
    size: int | None,
    vary: Vary | None,
) -> Ensemble:
    words = [*([f"method.name={method}"] if method else []), *overrides]
    first, *others = [read_experiment(file, words).experiment for file in files]
    if size is None:
        size = len(files) if others else _SIZE
    return Ensemble(
        first, size, vary or ("settings" if others else default_vary(first)), tuple(others)
    )


def _must_agree(
    folder: RunFolder,
    plan: Ensemble,
    experiments: Sequence[Path],
    overrides: Sequence[str],
    method: str | None,
    size: int | None,
    vary: Vary | None,
) -> None:
    """What is said again when an ensemble goes on must be what it was begun with."""
    size, vary = plan.size if size is None else size, vary or plan.vary
    if experiments:
        asked = _ensemble_of(experiments, overrides, method, size, vary)
    else:
        words = [*([f"method.name={method}"] if method else []), *overrides]
        origins = read_ensemble(folder.plan("ensemble"), [read_overrides(words)])
        asked = replace(origins, size=size, vary=vary)
    strange = plan.differences(asked)
    if strange:
        allowed = "Allowed: the settings that it was begun with, or a new folder (--out)"
        raise ConfigError(str(folder), [f"was begun with {', '.join(strange)}. {allowed}"])
