"""A leaderboard as tables: one over all data sets, two for each of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from dmlray.evaluation.metrics import label, tabled
from dmlray.printable import printable
from dmlray.reporting.search_report import short
from dmlray.reporting.sections import Section
from dmlray.results.leaderboard import Board, BoardRow, CellDifference, Leaderboard
from dmlray.scores import Scores, percent

_ZERO_SHOT = "zero-shot (no training)"


def leaderboard_sections(found: Leaderboard) -> list[Section]:
    """The mean ranks, then the ranking and the settings of each data set."""
    parts = [summary(found)]
    for board in found.boards:
        parts += [_ranking(found, board), _settings(found, board)]
    return parts


def summary(found: Leaderboard) -> Section:
    """Mean and 95 % interval of each method on each data set, by mean rank."""
    metric, overall = found.metric, found.overall
    cells = {
        (row.cell.method, board.dataset): _with_rank(row, metric)
        for board in found.boards
        for row in board.rows
    }
    cells |= {
        (cell.method, board.dataset): "failed" for board in found.boards for cell in board.failed
    }
    methods = [*overall.mean_ranks, *dict.fromkeys(name for name, _ in cells)]
    rows = []
    for name in dict.fromkeys(methods):
        rank = overall.mean_ranks.get(name)
        scores = [cells.get((name, board.dataset), "-") for board in found.boards]
        rows.append([f"{rank:.2f}" if rank else "-", printable(name), *scores])
    if any(board.zero_shot for board in found.boards):
        rows.append(["-", _ZERO_SHOT, *(percent(b.zero_shot, metric) for b in found.boards)])
    head = ["mean rank", "method", *(printable(board.dataset) for board in found.boards)]
    title = f"All data sets: {label(metric)} on classes never seen, %, (rank)"
    return Section(title, head, rows, list(_remarks(found)), names=1)


def _remarks(found: Leaderboard) -> Iterator[str]:
    budget, overall = found.budget, found.overall
    yield (
        f"budget of each: {budget['trials']} trials x {budget['folds']} folds, "
        f"{budget['epochs']} epochs, {budget['repeats']} repeats of the winner with new seeds"
    )
    yield "± is half the 95 % interval of the mean over repeats (Student t)"
    yield "rank on a data set: 1 + the number of methods that are significantly better"
    if overall.p is None:
        yield f"Friedman's test: not done ({overall.reason})"
        return
    verdict = "the methods differ" if overall.p < 0.05 else "no difference was found"
    yield f"Friedman's test over {overall.datasets} data sets: p = {overall.p:.2g}, {verdict}"
    yield (
        f"mean ranks that are less than {overall.critical_difference:.2f} apart are not "
        "significantly different (Nemenyi, level 0.05)"
    )


def _ranking(found: Leaderboard, board: Board) -> Section:
    metrics = tabled(name for row in board.rows for name in row.scores.metrics)
    if found.metric not in metrics:
        metrics = [found.metric, *metrics]
    rows = [
        [
            str(row.rank),
            printable(row.cell.method),
            *(_cell(row.scores, name) for name in metrics),
            _gain(row.gain),
            str(row.scores.embedding_size),
            f"{sum(row.cell.seconds.values()):,.0f}",
        ]
        for row in board.rows
    ]
    if board.zero_shot:
        each = [percent(board.zero_shot, name) for name in metrics]
        rows.append(["-", _ZERO_SHOT, *each, "", "", ""])
    blank = [""] * (len(metrics) + 3)
    rows += [["-", printable(cell.method), *blank] for cell in board.failed]
    head = ["rank", "method", *map(label, metrics), "tuning gains", "dimension", "device seconds"]
    return Section(_title(board), head, rows, list(_lines(board)), names=1)


def _title(board: Board) -> str:
    name = printable(board.dataset)
    if not board.rows:
        return f"{name}: no method has scores"
    scores = board.rows[0].scores
    counts = f"{scores.test_classes} classes never seen, {scores.test_images} images"
    return printable(f"{name}: {scores.dataset} {scores.dataset_fingerprint}, {counts}; %")


def _lines(board: Board) -> Iterator[str]:
    tested = [pair for pair in board.differences if pair.found]
    if board.differences:
        yield (
            f"{sum(pair.significant for pair in tested)} of {len(tested)} differences are "
            "significant (Student's t test, paired by seed, Holm-corrected for all pairs)"
        )
    yield (
        "tuning gains: winner minus default setting with equal seeds, 95 % interval; * marks "
        "significant ones (Holm-corrected)"
    )
    for row in board.rows:
        if row.cell.members > 1:
            name, members = printable(row.cell.method), row.cell.members
            yield f"{name}: ensembles of {members}, all members counted in device seconds"
    for cell in board.failed:
        yield printable(f"{cell.method} failed: {cell.failure}")


def _settings(found: Leaderboard, board: Board) -> Section:
    rows = [
        ["", printable(row.cell.method), _values(row.cell.won), *_validation(row, found.metric)]
        for row in board.rows
    ]
    title = f"{printable(board.dataset)}: settings that won"
    head = ["", "method", "settings", f"validation {label(found.metric)}, %", "of the default"]
    return Section(title, head, rows, [], names=2)


def _validation(row: BoardRow, metric: str) -> list[str]:
    known = {f"{name}": {metric: value} for name, value in row.cell.validation.items()}
    return [percent(known.get(name, {}), metric) for name in ("tuned", "default")]


def _values(values: Mapping[str, Any]) -> str:
    return printable(", ".join(f"{key}={short(value)}" for key, value in values.items()))


def _cell(scores: Scores, name: str) -> str:
    half = scores.half_width
    return percent(scores.metrics, name) + (f" ± {percent(half, name)}" if half else "")


def _with_rank(row: BoardRow, metric: str) -> str:
    return f"{_cell(row.scores, metric)} ({row.rank})"


def _gain(pair: CellDifference) -> str:
    if pair.found is None:
        return "-"
    value, low, high = (
        f"{100 * n:+.1f}" for n in (pair.found.value, pair.found.low, pair.found.high)
    )
    return f"{value} ({low} to {high}){'*' if pair.significant else ''}"
