"""One self-contained page of an ensemble: its protocol, its scores and their curve over sizes."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

from dmlray.atomic_files import write_json, write_text
from dmlray.evaluation.metrics import label, tabled
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting import figures
from dmlray.reporting.loggers import DEFAULT, Logger, open_logger
from dmlray.reporting.pages import png_address, render
from dmlray.reporting.threshold_section import threshold_section
from dmlray.scores import Scores, protocol_line

_NOT_PROTOCOL = (
    "metrics", "half_width", "curve", "parts", "concatenated", "zero_shot", "embeddings_sha256",
    "verification", "no_threshold",
)  # fmt: skip


def write_ensemble(folder: RunFolder, scores: Scores, loggers: Sequence[str] = DEFAULT) -> None:
    """Write the curve in all its forms, the page, and, when all is there, the scores.

    dmlray itself reads the scores alone.
    """
    with closing(open_logger(folder, loggers)) as logger:
        _write_curve(folder, scores, logger)
    write_text(folder.report, page(folder.path.name, scores))
    scores.write(folder.scores)


def _write_curve(folder: RunFolder, scores: Scores, logger: Logger) -> None:
    """Write curve.json and curve.png, and log both: the steps are sizes."""
    for size, metrics in enumerate(scores.curve, 1):
        logger.scalars(size, {f"test/{name}": value for name, value in metrics.items()})
    if scores.curve:
        write_json(folder.curve, document(scores))
    if len(scores.curve) > 1:
        figure = figures.ensemble_curve(scores)
        figures.add_text(figure, _subject(folder.path.name, scores), protocol_line(scores))
        figures.write_png(folder.curve_picture, figure)
        logger.image("test/curve", figures.pixels(figure))


def page(title: str, scores: Scores) -> str:
    """The page as HTML; it loads nothing."""
    sizes: list[object] = list(range(1, len(scores.curve) + 1)) or ["all"]
    curve = figures.png(figures.ensemble_curve(scores)) if len(scores.curve) > 1 else None
    return render(
        "ensemble.html",
        title=title,
        scores=scores,
        protocol=protocol_line(scores),
        curve=png_address(curve) if curve else None,
        columns={name: label(name) for name in tabled(scores.metrics)},
        threshold=threshold_section(scores),
        rows=zip(sizes, scores.curve or [scores.metrics], strict=True),
    )


def document(scores: Scores) -> dict[str, Any]:
    """The curve with all that it depends on, for programs other than dmlray."""
    settings = {key: value for key, value in asdict(scores).items() if key not in _NOT_PROTOCOL}
    by_size: Sequence[dict[str, float]] = [
        {"members": size, **metrics} for size, metrics in enumerate(scores.curve, 1)
    ]
    return {"protocol": settings, "zero_shot": scores.zero_shot, "sizes": by_size}


def _subject(title: str, scores: Scores) -> str:
    return f"{title}: {scores.method} on {scores.dataset}, {scores.test_classes} unseen classes"
