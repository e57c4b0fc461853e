"""The functions behind `dmlray compare` and `dmlray report`: nothing is trained."""

from collections.abc import Sequence
from pathlib import Path

from dmlray.api.run_results import BenchmarkResult, ComparisonResult, RunResult, SearchResult
from dmlray.api.run_setup import claim
from dmlray.errors import Call, ConfigError
from dmlray.learn.class_split import listed_once
from dmlray.learn.runtime import whole_machine
from dmlray.local_paths import path_of
from dmlray.plans.benchmark import read_benchmark
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.printable import shortened
from dmlray.reporting.leaderboard_files import write_leaderboard
from dmlray.reporting.progress import Display, Shown, shown
from dmlray.reporting.projector import write_projector
from dmlray.reporting.run_report import write_ensemble_report
from dmlray.reporting.search_page import write_search_page
from dmlray.reporting.training_report import IMAGES, write_report
from dmlray.results.comparison import compare_runs
from dmlray.results.leaderboard import finished_leaderboard
from dmlray.results.paired_tests import finished_run
from dmlray.scores import Scores

MOST_IMAGES = 1000  # a page of some 30 MB


def compare(
    runs: Sequence[str | Path],
    *,
    sort: str | None = None,
    published: bool = False,
    display: Shown = "auto",
) -> ComparisonResult:
    """Compare finished runs: ranked within each protocol, with paired significance tests.

    Runs of several trainings are paired by seed (t test), single ones by test class (bootstrap);
    p-values are Holm-corrected.

    Args:
        runs: Folders of trainings, cross-validations, repeats, ensembles or merges.
        sort: Metric to rank and test by; default map_at_r.
        published: Add the published scores of each run's method on its data set.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        ConfigError: If a run is no run, has no scores or not the metric, or is given twice.
        DataError: If files of a run are damaged.
    """
    if isinstance(runs, str | Path):
        raise ConfigError("`runs`", ["is one path. Allowed: a list of run folders"])
    paths = [path_of("runs", run) for run in runs]
    with shown(display) as entered, listed_once():
        counting = entered.count("ranking test images, runs")
        return ComparisonResult(compare_runs(paths, sort, published, counting))


def report(
    run: str | Path, *, images: int = IMAGES, projector: bool = False, display: Shown = "auto"
) -> RunResult | SearchResult | BenchmarkResult:
    """Write the report of a run from its files; nothing is trained.

    It is report.html, of a benchmark leaderboard.html and its other forms.

    Args:
        run: Folder of a search, of which a trial has ended, of a benchmark, or of a finished
            training, cross-validation, repeat, ensemble or merge.
        images: Queries of a training that are shown with their neighbours; 0: no pictures.
        projector: Write the embeddings for TensorBoard's projector, too.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        ConfigError: If there is no such run, it has no scores, or `images` is negative.
        DataError: If its files are damaged.
    """
    if isinstance(images, bool) or not isinstance(images, int) or not 0 <= images <= MOST_IMAGES:
        problem = f"{shortened(images)} is not allowed. Allowed: 0 to {MOST_IMAGES}"
        raise ConfigError("`images`", [problem])
    folder = RunFolder(path_of("run", run))
    if folder.kind() == "search":
        return _report_search(folder, projector, display)
    if folder.kind() == "benchmark":
        return _report_benchmark(folder)
    finished = finished_run(folder)
    call = Call("report", {"run": str(finished.folder)})
    with (
        shown(display) as entered,
        claim(finished.folder, call, resumed=True) as opened,
        listed_once(),
    ):
        if projector and (note := write_projector(opened.folder, finished.scores)):
            entered.log(note)
        write_run_report(opened.folder, finished.scores, images, entered)
    return RunResult(finished.scores, finished.folder)


def _report_search(folder: RunFolder, projector: bool, display: Shown) -> SearchResult:
    from dmlray.cluster.search.results import read_results  # Optuna takes a second to import

    if projector:
        allowed = f"Allowed: a training of {folder.best}"
        raise ConfigError("`projector`", [f"{folder} is a search without embeddings. {allowed}"])
    plan = read_search(folder.plan("search"))
    call = Call("report", {"run": str(folder)})
    with shown(display), claim(folder, call, resumed=True) as opened:
        found = read_results(plan, opened.folder)
        found.write(opened.folder)
        write_search_page(plan, opened.folder, found)
    return SearchResult(found, folder)


def _report_benchmark(folder: RunFolder) -> BenchmarkResult:
    call = Call("report", {"run": str(folder)})
    with claim(folder, call, resumed=True) as opened:
        plan = read_benchmark(folder.plan("benchmark"))
        found = finished_leaderboard(opened.folder, plan)
        write_leaderboard(opened.folder, found)
    return BenchmarkResult(found, folder)


def write_run_report(
    folder: RunFolder, scores: Scores, images: int = IMAGES, display: Display | None = None
) -> None:
    """Write report.html of a run of any kind that has scores."""
    if display:
        display.log(f"writing {folder}/{folder.report.name}")
    if folder.kind() in ("ensemble", "merge"):
        write_ensemble_report(folder, scores, whole_machine().device)
        return
    write_report(folder, images)
