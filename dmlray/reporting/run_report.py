"""One self-contained page of an ensemble: its protocol, its scores and their curve over sizes."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import torch

from dmlray.atomic_files import write_json, write_text
from dmlray.errors import DmlrayError
from dmlray.evaluation.metrics import label, tabled
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting import figures
from dmlray.reporting.loggers import DEFAULT, Logger, open_logger
from dmlray.reporting.pages import png_address, render, script
from dmlray.reporting.threshold_section import threshold_section
from dmlray.results.member_analysis import METRICS, MemberAnalysis, analyse_members
from dmlray.scores import Scores, percent, protocol_line

_NOT_PROTOCOL = (
    "metrics", "half_width", "curve", "parts", "concatenated", "zero_shot", "embeddings_sha256",
    "verification", "no_threshold",
)  # fmt: skip


def write_ensemble(folder: RunFolder, scores: Scores, loggers: Sequence[str] = DEFAULT) -> None:
    """Write the curve in all its forms and, when all is there, the scores.

    dmlray itself reads the scores alone.
    """
    with closing(open_logger(folder, loggers)) as logger:
        _write_curve(folder, scores, logger)
    scores.write(folder.scores)


def write_ensemble_report(folder: RunFolder, scores: Scores, device: torch.device) -> None:
    """Write report.html of a finished ensemble or merge and, of its members, members.csv."""
    members, note = None, ""
    try:
        members = analyse_members(folder, device)
    except DmlrayError as error:
        note = f"Its members are not compared: {error}"
    if members:
        members.write(folder)
    write_text(folder.report, page(folder.path.name, scores, members, note))


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


def page(title: str, scores: Scores, members: MemberAnalysis | None = None, note: str = "") -> str:
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
        members=_members(members) if members else None,
        note=note,
        **({"script": script("sort.js")} if members else {}),
    )


def _members(found: MemberAnalysis) -> dict[str, Any]:
    names = [label(name) for name in METRICS]
    part = f" ({found.queries:,} of {found.all_queries:,} queries)"
    return {
        "diversity": f"Two members agree on {found.agreement:.1%} of the queries on average: the "
        "nearest image is of the right class for both or for neither. Independent members with "
        f"these scores would agree on {found.by_chance:.1%}."
        + part
        * (found.queries < found.all_queries),
        "head": ["member", *names, "agreement", *(f"adds {name}" for name in names)],
        "rows": [
            [
                row.name,
                *(percent(row.scores, name) for name in METRICS),
                f"{100 * row.agreement:.1f}",
                *(f"{100 * row.adds[n]:+.2f}" if n in row.adds else "-" for n in METRICS),
            ]
            for row in found.rows
        ],
    }


def document(scores: Scores) -> dict[str, Any]:
    """The curve with all that it depends on, for programs other than dmlray."""
    settings = {key: value for key, value in asdict(scores).items() if key not in _NOT_PROTOCOL}
    by_size: Sequence[dict[str, float]] = [
        {"members": size, **metrics} for size, metrics in enumerate(scores.curve, 1)
    ]
    return {"protocol": settings, "zero_shot": scores.zero_shot, "sizes": by_size}


def _subject(title: str, scores: Scores) -> str:
    return f"{title}: {scores.method} on {scores.dataset}, {scores.test_classes} unseen classes"
