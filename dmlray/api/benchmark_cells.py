"""Run one cell of a benchmark: a search, repeats of its winner and of the default setting."""

import shutil
from pathlib import Path
from typing import Any

from dmlray.api.averages import repeat
from dmlray.api.ensembles import ensemble
from dmlray.api.run_setup import resume_or_start
from dmlray.api.searches import tune
from dmlray.cluster.resources import Cluster
from dmlray.cluster.search.run import resources_of
from dmlray.errors import DmlrayError, RunError, UnfinishedRunError
from dmlray.plans.benchmark import Cell
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display
from dmlray.reporting.search_report import SearchReport
from dmlray.results.cells import CellResult, averaged, device_seconds
from dmlray.scores import Scores, read_scores

_LAST = {"protocol.selection": "last", "protocol.tuned_by": None}  # as a winner is trained


def run_cell(cell: Cell, run: RunFolder, cluster: Cluster, display: Display) -> CellResult:
    """Run what is missing of a cell; its own failure is a result, too.

    Raises:
        UnfinishedRunError: If the run cannot go on, as with a full disk.
    """
    try:
        return _run(
            cell, RunFolder(run.cell(cell.dataset, cell.method), run.root), cluster, display
        )
    except UnfinishedRunError:
        raise
    except DmlrayError as error:
        return _result(cell, failure=str(error).replace("\n", "; "))


def _run(cell: Cell, folder: RunFolder, cluster: Cluster, display: Display) -> CellResult:
    folder.make()
    found = tune(**_stage(folder.path / "search", "search", search=cell.search), display=display)
    report, best = found.report, found.report.best
    if report.failure or best is None:
        raise RunError(report.failure or "no trial succeeded")
    winner = read_experiment(found.best).experiment
    default = override(cell.search.experiment, "benchmark", _LAST)
    if cell.members == 1:
        tuned, tuned_at = read_scores(found.folder.repeat.scores), found.folder.repeat
        plain, plain_at = _repeated(cell, default, folder.path / "default", display)
        parts = [[at.member(n) for n in range(cell.repeats)] for at in (tuned_at, plain_at)]
    else:
        tuned, one = _ensembles(
            cell, winner, RunFolder(folder.path / "tuned", folder.root), display
        )
        plain, other = _ensembles(
            cell, default, RunFolder(folder.path / "default", folder.root), display
        )
        parts = [one, other]
    workers = resources_of(cell.search, cluster).workers
    seconds = [_searched(report) * workers, *map(device_seconds, parts)]
    metric = cell.search.metrics[0]
    first = next((row for row in report.rows if row.number == 0), None)
    validation = {"tuned": best.metrics[metric]}
    if first and metric in first.metrics:
        validation["default"] = first.metrics[metric]
    return _result(
        cell,
        tuned=tuned,
        default=plain,
        validation=validation,
        trials={
            "trained": len(report.trained),
            "failed": sum(row.state == "FAIL" for row in report.trained),
        },
        won=dict(best.values),
        seconds=dict(zip(("search", "tuned", "default"), seconds, strict=True)),
    )


def _result(cell: Cell, **found: Any) -> CellResult:
    plan = cell.search
    return CellResult(
        method=cell.method,
        dataset=cell.dataset,
        plan=cell.fingerprint,
        metric=plan.metrics[0],
        budget={
            "trials": plan.settings.trials,
            "folds": plan.experiment.protocol.fold_count,
            "repeats": cell.repeats,
            "epochs": plan.experiment.budget.epochs,
        },
        members=cell.members,
        **found,
    )


def _repeated(
    cell: Cell, plan: Experiment, path: Path, display: Display
) -> tuple[Scores, RunFolder]:
    new = {"experiment": plan, "size": cell.repeats}
    return repeat(**_stage(path, "repeat", **new), display=display)


def _ensembles(
    cell: Cell, plan: Experiment, folder: RunFolder, display: Display
) -> tuple[Scores, list[RunFolder]]:
    """Ensembles with the seeds that repeats have; the folders of all their members."""
    folder.make()
    runs = []
    for number in range(cell.repeats):
        seeded = override(plan, "benchmark", {"seed": plan.seed + 1 + number})
        new = {"experiments": seeded, "size": cell.members}
        runs.append(
            ensemble(**_stage(folder.path / f"{number:02d}", "ensemble", **new), display=display)
        )
    members = [run.folder.member(n) for run in runs for n in range(cell.members)]
    return averaged([run.scores for run in runs]), members


def _searched(report: SearchReport) -> float:
    """Seconds of all trials."""
    return round(sum(row.seconds or 0.0 for row in report.trained), 1)


def _stage(path: Path, kind: str, **new: Any) -> dict[str, Any]:
    """Options of a stage: resume it or, where it was killed before its plan was written, begin."""
    folder = RunFolder(path)
    if folder.is_started() and not folder.plan(kind).is_file():
        shutil.rmtree(path)
    return resume_or_start(path, **new)
