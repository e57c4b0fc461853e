"""The files of a leaderboard: JSON, CSV, Markdown, LaTeX, a picture and a page."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from dmlray.atomic_files import write_json, write_text
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import printable
from dmlray.reporting import figures, sections
from dmlray.reporting.leaderboard_tables import leaderboard_sections
from dmlray.reporting.pages import png_address, render
from dmlray.reporting.rank_figure import critical_difference_figure
from dmlray.results.leaderboard import Board, BoardRow, CellDifference, Leaderboard


def write_leaderboard(folder: RunFolder, found: Leaderboard) -> None:
    """Write leaderboard.* of a benchmark, each whole or not at all."""
    parts, overall = leaderboard_sections(found), found.overall
    picture = None
    if overall.p is not None:
        figure = critical_difference_figure(overall.mean_ranks, overall.critical_difference)
        picture = figures.png(figure)
        figures.write_png(folder.leaderboard("png"), figure)
    title = f"Benchmark {folder.path.name}"
    page = render(
        "leaderboard.html",
        title=title,
        sections=parts,
        picture=png_address(picture) if picture else None,
    )
    write_text(folder.leaderboard("html"), page)
    write_text(folder.leaderboard("md"), sections.as_markdown(parts) + "\n")
    write_text(folder.leaderboard("tex"), sections.as_latex(parts) + "\n")
    write_text(folder.leaderboard("csv"), sections.as_csv(list(records(found))) + "\n")
    write_json(folder.leaderboard("json"), document(found))


def records(found: Leaderboard) -> Iterator[dict[str, Any]]:
    """Rows of all data sets; metrics are fractions, names are printable."""
    for board in found.boards:
        for row in board.rows:
            half = {f"{name}_half_width": half for name, half in row.scores.half_width.items()}
            yield {
                "dataset": printable(board.dataset),
                "method": printable(row.cell.method),
                "rank": row.rank,
                "mean_rank": found.overall.mean_ranks.get(row.cell.method),
                "n": row.scores.n,
                "members": row.cell.members,
                "dimension": row.scores.embedding_size,
                **row.scores.metrics,
                **half,
                "gain": row.gain.found.value if row.gain.found else None,
                "device_seconds": sum(row.cell.seconds.values()),
                "failure": "",
            }
        for cell in board.failed:
            names = {"dataset": printable(board.dataset), "method": printable(cell.method)}
            yield {**names, "failure": printable(cell.failure)}


def document(found: Leaderboard) -> dict[str, Any]:
    """The leaderboard for other programs; times are below `seconds` alone."""
    return {
        "metric": found.metric,
        "budget": found.budget,
        "overall": asdict(found.overall),
        "datasets": {board.dataset: _board(board) for board in found.boards},
    }


def _board(board: Board) -> dict[str, Any]:
    return {
        "zero_shot": board.zero_shot,
        "rows": list(map(_row, board.rows)),
        "failed": {cell.method: cell.failure for cell in board.failed},
        "differences": list(map(_difference, board.differences)),
    }


def _row(row: BoardRow) -> dict[str, Any]:
    default = row.cell.default
    return {
        "rank": row.rank,
        "method": row.cell.method,
        "members": row.cell.members,
        "scores": asdict(row.scores),
        "default": default.metrics if default else {},
        "gain": _difference(row.gain),
        "validation": row.cell.validation,
        "trials": row.cell.trials,
        "won": row.cell.won,
        "seconds": row.cell.seconds,
    }


def _difference(pair: CellDifference) -> dict[str, Any]:
    names = {"better": pair.better, "worse": pair.worse}
    if pair.found is None:
        return {**names, "reason": pair.reason}
    found = asdict(pair.found)
    return {**names, **found, "p_holm": pair.corrected, "significant": pair.significant}
