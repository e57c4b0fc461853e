"""The page of a search: what it found, what mattered, what it took, and all of its trials."""

from collections.abc import Iterator
from typing import Any

from dmlray.atomic_files import write_text
from dmlray.evaluation.metrics import is_known, label
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search
from dmlray.reporting import figures, search_figures
from dmlray.reporting.pages import png_address, render, script
from dmlray.reporting.search_report import Budget, Row, SearchReport, short
from dmlray.reporting.tables import average_rows
from dmlray.scores import Scores, percent, protocol_line, read_scores

_MOST_TRIALS = 1000  # that the page lists; trials.json has all
_STATES = {"COMPLETE": "complete", "PRUNED": "stopped early", "FAIL": "failed"}
_STOPPING = {"none": "none", "asha": "ASHA", "median": "median rule"}


def write_search_page(plan: Search, folder: RunFolder, report: SearchReport) -> None:
    """Write report.html of a search of which at least one trial has ended.

    Raises:
        RunError: If its repeats are damaged.
    """
    repeats = read_scores(folder.repeat.scores) if folder.repeat.scores.exists() else None
    write_text(folder.report, search_page(folder.path.name, plan, report, repeats))


def search_page(
    title: str, plan: Search, report: SearchReport, repeats: Scores | None = None
) -> str:
    """The page as HTML; it loads nothing."""
    experiment = plan.experiment
    return render(
        "search.html",
        title=f"{title}: search of {experiment.method.name} on {experiment.data.name}",
        findings=[*_winner(report), *map(_sentence, [*report.verdict(), *report.warnings])],
        settings=_settings(report),
        words=_words(plan),
        repeats=_repeats(repeats) if repeats else None,
        budget=_budget(report.budget, len(report.rows) - len(report.trained)),
        pictures=dict(_pictures(report)),
        importances=_importances(report),
        slices=dict(_slices(plan, report)),
        parallel=_png(search_figures.parallel_coordinates(report, plan.ranges))
        if any(row.metrics for row in report.trained if row.state != "FAIL")
        else None,
        trials=_trials(plan, report),
        script=script("sort.js"),
    )


def _winner(report: SearchReport) -> Iterator[str]:
    best, failure = report.best, report.failure
    if best is None:
        yield "No trial is complete."
    else:
        scores = ", ".join(f"{label(n)} {_value(best.metrics[n], n)}" for n in report.metrics)
        yield f"Best of {len(report.trained)} trials: trial {best.number} with {scores}."
    if failure:
        yield f"Not to be relied on: {failure}"


def _sentence(line: str) -> str:
    return f"{line}."


def _settings(report: SearchReport) -> list[list[str]]:
    """Key, value of the best trial, value of trial 0."""
    if report.best is None:
        return []
    best, first = report.best.values, report.rows[0].values
    keys = dict.fromkeys([*best, *first])
    return [[k, *(short(v[k]) if k in v else "-" for v in (best, first))] for k in keys]


def _words(plan: Search) -> dict[str, str]:
    """What the search did, and what its scores are of."""
    settings, protocol = plan.settings, plan.experiment.protocol
    return {
        "Scores": f"{', '.join(map(label, plan.metrics))} on held-out training classes, mean of "
        f"{protocol.fold_count} folds ({protocol.split}); the search saw no test class. The best "
        "of many trials is rated too high: dmlray repeat best.yaml scores it on test classes.",
        "Trials": f"{settings.trials} asked for; trial 0 has the experiment's own settings.",
        "Sampler": f"{settings.sampler}, seed {settings.seed}.",
        "Early stopping": f"{_STOPPING[settings.scheduler]}."
        if len(plan.metrics) == 1
        else "none, because there are several metrics.",
    }


def _repeats(scores: Scores) -> dict[str, Any]:
    rows = average_rows(scores)
    return {
        "head": ["", *(name for name, _ in rows)],
        "rows": [
            [label(name), *(percent(values, name) for _, values in rows)] for name in scores.metrics
        ],
        "protocol": protocol_line(scores),
    }


def _budget(budget: Budget, again: int) -> list[str]:
    lines = [
        f"{budget.epochs:,} of {budget.planned_epochs:,} planned epochs were trained (each of all "
        f"folds), in {_time(budget.seconds)} of the trials' own time."
    ]
    if budget.stopped:
        lines.append(
            f"Trials stopped early: {budget.stopped}. That saved {budget.saved_epochs:,} epochs, "
            f"about {_time(budget.saved_seconds)} at their own pace."
        )
    if again:
        lines.append(f"{again} suggestions were points of earlier trials and not trained again.")
    return lines


def _pictures(report: SearchReport) -> Iterator[tuple[str, str]]:
    yield "Trials", _png(search_figures.history(report))
    for other in report.metrics[1:]:
        if any(other in row.metrics for row in report.trained if row.state == "COMPLETE"):
            title = f"{label(report.metrics[0])} and {label(other)}"
            yield title, _png(search_figures.front(report, other))


def _importances(report: SearchReport) -> dict[str, str | None]:
    if not report.importances:
        why = "Not estimated: it needs eight complete trials whose scores differ."
        return {"text": why, "picture": None}
    text = (
        f"Share of the variance of {label(report.metrics[0])} between complete trials (fANOVA), of "
        "keys that all of them have."
    )
    return {"text": text, "picture": _png(search_figures.importances(report.importances))}


def _slices(plan: Search, report: SearchReport) -> Iterator[tuple[str, str]]:
    """A picture of each key, the most important first."""
    for key in sorted(plan.ranges.space, key=lambda k: -report.importances.get(k, 0.0)):
        figure = search_figures.slice_of(report, key, plan.ranges.space[key])
        if figure:
            yield key, _png(figure)


def _trials(plan: Search, report: SearchReport) -> dict[str, Any]:
    keys = [k for k in plan.ranges.space if any(k in row.values for row in report.rows)]
    rows = report.rows
    if len(rows) > _MOST_TRIALS:
        rows = sorted(rows, key=lambda row: -row.metrics.get(report.metrics[0], -1))[:_MOST_TRIALS]
    shown = f"The best {_MOST_TRIALS} of" if len(report.rows) > _MOST_TRIALS else "All"
    head = ["trial", "state", *map(label, report.metrics), "± folds", "epochs", "seconds", *keys]
    return {
        "head": head,
        "rows": [_cells(report, row, keys) for row in rows],
        "text": f"{shown} {len(report.rows)} trials; of those that were stopped early the score of "
        "their last epoch. A click on a column's name sorts by it. All: trials.json",
    }


def _cells(report: SearchReport, row: Row, keys: list[str]) -> list[str]:
    return [
        str(row.number),
        _state(row),
        *(_value(row.metrics[n], n) if n in row.metrics else "-" for n in report.metrics),
        _value(row.spread, report.metrics[0]) if len(row.folds) > 1 else "-",
        f"{row.epochs}/{row.planned_epochs}",
        "-" if row.seconds is None else f"{row.seconds:.0f}",
        *(short(row.values[key]) if key in row.values else "-" for key in keys),
    ]


def _state(row: Row) -> str:
    """How a trial ended, where, and why."""
    same = "" if row.same_as is None else f", as trial {row.same_as} of the same point"
    imported = f", in {row.imported}" if row.imported else ""
    return f"{_STATES[row.state]}{same}{imported}" + (f": {row.reason}" if row.reason else "")


def _value(value: float, metric: str) -> str:
    return f"{value:.2%}" if is_known(metric) else short(value)


def _time(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _png(figure: Any) -> str:
    return png_address(figures.png(figure))
