"""report.html of a training, or of several trainings of one setting: numbers from files alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from dmlray.atomic_files import write_text
from dmlray.errors import DmlrayError
from dmlray.evaluation.metrics import label
from dmlray.evaluation.significance import Difference
from dmlray.learn import metrics_log
from dmlray.learn.class_split import load_dataset
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting import figures
from dmlray.reporting.error_section import error_section
from dmlray.reporting.pages import png_address, render, script
from dmlray.reporting.protocol_words import protocol_words
from dmlray.reporting.tables import score_rows
from dmlray.reporting.threshold_section import threshold_section
from dmlray.reporting.thumbnails import Thumbnails
from dmlray.results.comparison import PublishedRow, published_row, resolved_plan
from dmlray.results.error_analysis import METRICS, ErrorAnalysis, analyse
from dmlray.results.paired_tests import ComparedRun
from dmlray.results.scored_images import scored_images
from dmlray.scores import NO_TEST_CLASSES, Scores, percent, read_scores

IMAGES = 24  # queries that are shown
_TITLES = {metrics_log.SPEED: "Images per second", "learning_rate": "Learning rate"}


def write_report(folder: RunFolder, images: int = IMAGES) -> None:
    """Write report.html of a finished training, and its tables of errors; or of cv or repeats.

    Args:
        folder: Of the run.
        images: Queries that are shown with their neighbours; 0: no pictures at all.

    Raises:
        DmlrayError: If the run is not finished or one of its files is damaged.
    """
    scores = read_scores(folder.scores)
    analysis = None
    if folder.kind() == "experiment" and scores.test_classes:
        analysis = analyse(scored_images(folder, scores))
        analysis.write(folder)
    write_text(folder.report, report_page(folder, scores, analysis, images))


def report_page(
    folder: RunFolder, scores: Scores, analysis: ErrorAnalysis | None, images: int = IMAGES
) -> str:
    """The page as HTML; it loads nothing."""
    published = published_row(ComparedRun(folder, scores))
    plan = resolved_plan(folder)
    errors = None
    if analysis and plan:
        thumbnails, note = _thumbnails(plan.experiment, images)
        errors = error_section(analysis, thumbnails, images)
        errors["note"] = note or _missing(thumbnails)
    return render(
        "run.html",
        title=f"{folder.path.name}: {scores.method} on {scores.dataset}",
        scores=_scores(scores, published, analysis),
        protocol=protocol_words(scores),
        curves=_curves(metrics_log.read(folder.metrics), scores.selection),
        threshold=threshold_section(scores),
        errors=errors,
        script=script("sort.js"),
    )


def _thumbnails(plan: Experiment, images: int) -> tuple[Thumbnails, str]:
    """Pictures of the data set, or a sentence that says why there are none."""
    if not images:
        return Thumbnails(None, 1), ""
    try:
        return Thumbnails(load_dataset(plan).root, plan.data.max_pixels), ""
    except DmlrayError as error:
        return Thumbnails(None, 1), f"No pictures: {error}"


def _missing(thumbnails: Thumbnails) -> str:
    if thumbnails.root is None or not thumbnails.missing:
        return ""
    return f"{thumbnails.missing} pictures are left out: they are not where they were."


def _scores(
    scores: Scores, published: PublishedRow | None, analysis: ErrorAnalysis | None
) -> dict[str, Any]:
    """The table of all scores: a row for each metric."""
    if not scores.test_classes:
        return {"head": [], "rows": [], "lines": [f"There are {NO_TEST_CLASSES}."]}
    columns: dict[str, Mapping[str, float]] = dict(score_rows(scores))
    found = {name: analysis.interval(name) for name in METRICS} if analysis else {}
    intervals = {name: value for name, value in found.items() if value}
    names = list(dict.fromkeys(name for metrics in columns.values() for name in metrics))
    head = ["", *columns]
    rows = [[label(name), *(percent(c, name) for c in columns.values())] for name in names]
    if intervals:
        head.append("95 % interval over test classes")
        for name, row in zip(names, rows, strict=True):
            row.append(_interval(intervals.get(name)))
    if published:
        head.append("published")
        for name, row in zip(names, rows, strict=True):
            row.append(percent(published.published.scores, name))
    return {"head": head, "rows": rows, "lines": _score_lines(scores, published, bool(intervals))}


def _score_lines(scores: Scores, published: PublishedRow | None, intervals: bool) -> list[str]:
    lines = [f"n = {scores.n}" + ("" if scores.n > 1 else ": one training, no interval over seeds")]
    if intervals:
        lines[0] += "; the interval is a bootstrap over test classes"
    if published:
        differs = "; ".join(published.differs) or "nothing that dmlray knows"
        lines.append(f"Published: {published.published.source}. Differs: {differs}")
    return lines


def _interval(found: Difference | None) -> str:
    return f"{100 * found.low:.1f} to {100 * found.high:.1f}" if found else "-"


def _curves(lines: Sequence[Mapping[str, float]], selection: str) -> dict[str, str]:
    """Figures of what the metrics log holds: loss terms, scores, and all else by name."""
    names = dict.fromkeys(name for line in lines for name in line)
    if sum(_is_loss(name) for name in names) == 2:
        names.pop("loss")  # of one term
    scored = "test" if selection == "best_on_test" else "held-out training"
    panels: dict[str, list[str]] = {}
    for name in names:
        if name not in ("epoch", "embedding_size"):
            score = f"Scores of each epoch, on {scored} classes"
            title = _TITLES.get(name) or (
                "Loss" if _is_loss(name) else score if label(name) != name else name
            )
            panels.setdefault(title, []).append(name)
    return {
        title: png_address(figures.png(figures.training_curve(lines, group)))
        for title, group in panels.items()
    }


def _is_loss(name: str) -> bool:
    return name == "loss" or name.startswith("loss_")
