"""The function behind `dmlray tune`: a search, its winner and the winner's repeats."""

from dataclasses import replace
from itertools import count
from pathlib import Path

from dmlray.api.averages import repeat
from dmlray.api.run_results import SearchResult
from dmlray.api.run_setup import Command, Run, open_run, prepare, resume_or_start, run_name
from dmlray.api.teaching import load_teacher, teach
from dmlray.cluster.search import run as searching
from dmlray.cluster.search.start_points import read_start
from dmlray.cluster.search.study_checks import read_study
from dmlray.cluster.session import session
from dmlray.cluster.warm_caches import fill_caches
from dmlray.learn.shared_features import sharing_features
from dmlray.learn.space_preflight import preflight_space
from dmlray.plans.config_sources import Overrides
from dmlray.plans.ensemble import read_ensemble, repeats
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search, SearchSource, read_search
from dmlray.plans.search_continuation import continued
from dmlray.reporting.progress import Display, Shown
from dmlray.reporting.search_page import write_search_page
from dmlray.reporting.search_report import SearchReport

_TUNE = Command("tune", "search", read_search)
_SAME_WINNER = ("experiment.protocol.tuned_by", "experiment.data.root")  # whatever these are


def tune(
    search: SearchSource | None = None,
    overrides: Overrides = (),
    *,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    address: str | None = None,
    display: Shown = "auto",
) -> SearchResult:
    """Search hyperparameters; write the winner as `best.yaml`, a legal experiment, and repeat it.

    Only the repeats, where the search asks for some, open the test classes: after the search, and
    not where most of its trials failed, see `SearchReport.failure`.

    Args:
        search: A file, its content, or a `Search`.
        overrides: Key -> value: the search's own settings, and dotted keys of its experiment;
            beside `resume` those that may change: trials, time_budget, resources, repeats.
        out: New run folder; default runs/NAME.
        resume: Run folder to go on with, in place of a search and of `out`.
        address: Ray cluster to join; default RAY_ADDRESS or a new one.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the run failed.
    """

    def new() -> tuple[Search, str]:
        plan = read_search(search, overrides)
        return plan, run_name(search, plan.experiment)

    with open_run(_TUNE, new, {"search": search, "out": out}, resume, display) as run:
        if resume:
            run = replace(run, plan=continued(run.plan, overrides))
            read_study(run.plan, run.folder)
        return SearchResult(_search(run, address), run.folder)


def _search(run: Run[Search], address: str | None) -> SearchReport:
    """Run the trials that are missing, and train the winner as often as the search asks for."""
    folder, display = run.folder, run.display
    teacher = load_teacher([run.plan.experiment], folder)
    experiment, dataset = prepare(run.plan.experiment, display, folds=True)
    plan = replace(run.plan, experiment=experiment)
    preflight_space(plan, dataset)
    if not folder.study.exists():
        read_start(plan, dataset.fingerprint)  # checked before Ray starts
    with session(address, run.display.log) as cluster:
        resources = searching.resources_of(plan, cluster)
        fill_caches(plan.experiment, display, resources.cpus, resources.gpus)
        run.start(lambda: plan.write(run.plan_file), dataset, plan.experiment.seed)
        plan.write(run.plan_file)  # what changed in a search that goes on
        teach(teacher, dataset, folder, display)
        with sharing_features(folder):
            report = searching.search(plan, folder, resources, display)
        best = report.best
        assert best is not None  # else the search has raised
        score, trials = best.metrics[plan.metrics[0]], len(report.trained)
        plan.write_winner(folder.best, best.number, best.values, score, trials)
        if plan.settings.repeats and not report.failure:
            new = {"experiment": folder.best, "size": plan.settings.repeats}
            _set_aside_repeats(folder, plan.settings.repeats, display)
            repeat(**resume_or_start(folder.repeat.path, **new), display=display)
    write_search_page(plan, folder, report)
    return report


def _set_aside_repeats(folder: RunFolder, size: int, display: Display) -> None:
    """Rename the repeats of an earlier winner, or of another number; nothing is overwritten."""
    if not folder.repeat.plan("repeat").exists():
        return
    earlier = read_ensemble(folder.repeat.plan("repeat"))
    wanted = repeats(read_experiment(folder.best).experiment, size)
    if all(d.split()[0] in _SAME_WINNER for d in earlier.differences(wanted)):
        return
    names = (folder.path / f"repeat_{number}" for number in count(1))
    kept = next(name for name in names if not name.exists())
    folder.repeat.path.rename(kept)
    display.log(f"{folder.repeat.path.name}/ has other settings: it is now {kept.name}/")
