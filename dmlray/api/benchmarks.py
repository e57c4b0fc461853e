"""The function behind `dmlray benchmark`: methods x data sets under one budget."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from dmlray.api.benchmark_cells import run_cell
from dmlray.api.run_results import BenchmarkResult
from dmlray.api.run_setup import Command, Run, open_run, prepare
from dmlray.cluster.benchmark_forecast import BenchmarkForecast, CellForecaster
from dmlray.cluster.ensemble.actor_pool import share_of
from dmlray.cluster.resources import Cluster
from dmlray.cluster.search.run import resources_of
from dmlray.cluster.session import session
from dmlray.cluster.side_by_side import run_side_by_side
from dmlray.errors import ConfigError, DmlrayError
from dmlray.learn.shared_features import sharing_features
from dmlray.local_paths import path_of
from dmlray.plans.benchmark import Benchmark, BenchmarkSource, Cell, read_benchmark
from dmlray.plans.config_sources import Overrides
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.leaderboard_files import write_leaderboard
from dmlray.reporting.progress import Display, Shown, SilentDisplay
from dmlray.results.cells import CellResult, file_of, read_cell
from dmlray.results.leaderboard import finished_leaderboard

_BENCHMARK = Command("benchmark", "benchmark", read_benchmark)
_NAMED = 3  # cells that a problem names


def benchmark(
    file: BenchmarkSource | None = None,
    overrides: Overrides = (),
    *,
    start_from: str | Path | None = None,
    out: str | Path | None = None,
    resume: str | Path | None = None,
    address: str | None = None,
    display: Shown = "auto",
) -> BenchmarkResult:
    """Search and repeat each method on each data set; write the leaderboard.

    A finished cell, also one that failed, is never run again: its result is one JSON file below
    `results`. An interrupted one resumes its own search and repeats.

    Args:
        file: A benchmark file, its content, or a `Benchmark`.
        overrides: Dotted key -> value: the benchmark's own keys, or keys of all its experiments.
        start_from: Results of an earlier run; cells of equal names and plans are taken over.
        out: New run folder; default runs/NAME.
        resume: Run folder to go on with, in place of all of the above.
        address: Ray cluster to join; default RAY_ADDRESS or a new one.
        display: "auto" shows progress on standard error; None shows none.

    Raises:
        DmlrayError: If an argument cannot be used, or the run was interrupted by a failure that
            is not the cell's own.
    """

    def new() -> tuple[Benchmark, str]:
        name = Path(file).stem if isinstance(file, str | Path) else "benchmark"
        return read_benchmark(file, overrides), name

    given = {"file": file, "overrides": overrides, "start_from": start_from, "out": out}
    with open_run(_BENCHMARK, new, given, resume, display) as run:
        known = [] if start_from is None else _results(path_of("start_from", start_from), run.plan)
        missing = _missing(run, known)
        prepare_cells(missing, run.display)
        if missing:
            with session(address, run.display.log) as cluster:
                at_once = cells_at_once(missing, cluster)
                _start(run, known)
                with sharing_features(run.folder):  # cells of a data set have equal trunks
                    _run(run, missing, at_once, cluster)
        else:
            _start(run, known)
        found = finished_leaderboard(run.folder, run.plan)
        write_leaderboard(run.folder, found)
        return BenchmarkResult(found, run.folder)


def plan_benchmark(plan: Benchmark, address: str | None, display: Display) -> BenchmarkForecast:
    """Forecast all cells from a probe of each method; check all and leave no trace.

    Raises:
        DmlrayError: What the first trial of a cell would meet.
    """
    prepare_cells(plan.cells, display)
    with session(address, display.log) as cluster:
        at_once = cells_at_once(plan.cells, cluster)
        probed = display.count("cells, each method probed in a process of its own")
        found, forecaster = [], CellForecaster(cluster)
        for number, cell in enumerate(plan.cells):
            probed(number, len(plan.cells))
            experiment, dataset = prepare(cell.search.experiment, SilentDisplay(), folds=True)
            fitted = replace(cell, search=replace(cell.search, experiment=experiment))
            found.append(forecaster.forecast(fitted, dataset))
        probed(len(found), len(found))
        return BenchmarkForecast(found, at_once)


def prepare_cells(cells: Sequence[Cell], display: Display) -> None:
    """Check data, folds and batches of all cells, and decode their images.

    Raises:
        ConfigError: Lists the problems of all cells.
    """
    check = display.count("checking cells")

    def prepare_one(cell: Cell) -> None:
        prepare(cell.search.experiment, display, folds=True)

    _collect(cells, prepare_one, check)


def cells_at_once(cells: Sequence[Cell], cluster: Cluster) -> int:
    """Return how many cells the cluster holds side by side, with all their trials.

    Raises:
        ConfigError: Lists the cells that do not fit at all.
    """
    _collect(cells, lambda cell: resources_of(cell.search, cluster))
    free = []
    for cell in cells:
        each = resources_of(cell.search, cluster)
        share = share_of(cluster, 1)
        trials = each.at_once * each.workers / cluster.fit(each.cpus, each.gpus)
        repeats = min(1.0, cell.repeats / cluster.fit(share.cpus, share.gpus))
        free.append(int(1 / max(trials, repeats)))
    return max(1, min(free))


def _collect(
    cells: Sequence[Cell],
    check: Callable[[Cell], object],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Check each cell; each problem is listed once, with the cells that have it.

    Raises:
        ConfigError: If there is any.
    """
    found: dict[str, list[str]] = {}
    for number, cell in enumerate(cells, 1):
        try:
            check(cell)
        except DmlrayError as error:
            problems = error.problems if isinstance(error, ConfigError) else [str(error)]
            source = f"{error.source}: " if isinstance(error, ConfigError) else ""
            for problem in problems:
                found.setdefault(f"{source}{problem}", []).append(cell.title)
        progress(number, len(cells))
    if found:
        raise ConfigError(
            "benchmark", [f"{_named(where)}: {what}" for what, where in found.items()]
        )


def _named(cells: Sequence[str]) -> str:
    more = len(cells) - _NAMED
    return ", ".join(cells[:_NAMED]) + (f" and {more} more cells" if more > 0 else "")


def _results(folder: Path, plan: Benchmark) -> list[CellResult]:
    """Results in `folder`, or in the benchmark run there, of cells that are equal in `plan`.

    Raises:
        ConfigError: If there are no results.
    """
    folder = RunFolder(folder).results if RunFolder(folder).results.is_dir() else folder
    files = sorted(folder.glob("*.json"))
    if not files:
        problem = "holds no results of a benchmark. Allowed: a run of one, or its results"
        raise ConfigError("`start_from`", [f"{folder} {problem}"])
    wanted = {(cell.dataset, cell.method, cell.fingerprint) for cell in plan.cells}
    return [found for file in files if _identity(found := read_cell(file)) in wanted]


def _identity(result: CellResult) -> tuple[str, str, str]:
    """A fingerprint alone is no identity: two folders of images may have equal plans."""
    return result.dataset, result.method, result.plan


def _missing(run: Run[Benchmark], known: Sequence[CellResult]) -> list[Cell]:
    """Cells without a result.

    Raises:
        ConfigError: If a result is of another plan.
    """
    ready, missing = set(map(_identity, known)), list[Cell]()
    for cell in run.plan.cells:
        file = file_of(run.folder.results, cell.dataset, cell.method)
        if not file.exists():
            identity = (cell.dataset, cell.method, cell.fingerprint)
            missing += [cell] if identity not in ready else []
        elif read_cell(file).plan != cell.fingerprint:
            remedy = "Allowed: delete it, and the cell is run again"
            raise ConfigError(str(file), [f"is the result of another plan of this cell. {remedy}"])
    return missing


def _start(run: Run[Benchmark], known: Sequence[CellResult]) -> None:
    run.start(lambda: run.plan.write(run.plan_file))
    for result in known:
        result.write(run.folder.results)
    if known:
        run.display.log(f"{len(known)} cells are taken from earlier results")


def _run(run: Run[Benchmark], missing: Sequence[Cell], at_once: int, cluster: Cluster) -> None:
    total, done = len(run.plan.cells), len(run.plan.cells) - len(missing)

    def work(cell: Cell, display: Display) -> None:
        run.display.log(f"cell {cell.title}: {cell.trainings} trainings")
        run_cell(cell, run.folder, cluster, display).write(run.folder.results)

    def on_done(cell: Cell) -> None:
        nonlocal done
        done += 1
        result = read_cell(file_of(run.folder.results, cell.dataset, cell.method))
        outcome = f"failed: {result.failure}" if result.failure else "finished"
        run.display.log(f"cell {cell.title} {outcome}; {done}/{total} cells")

    run_side_by_side(missing, work, at_once, run.display, on_done)
