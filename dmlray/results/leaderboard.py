"""A benchmark's leaderboard: ranks per data set and over all of them, from the cells' results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.rank_tests import critical_difference, friedman, ranks
from dmlray.evaluation.significance import LEVEL, Difference, holm, paired_t
from dmlray.plans.benchmark import Benchmark
from dmlray.plans.run_folder import RunFolder
from dmlray.results.cells import CellResult, file_of, read_cell
from dmlray.scores import Scores


@dataclass(frozen=True)
class CellDifference:
    """One score minus another, paired by seed; `reason` says why there is no test."""

    better: str
    worse: str
    found: Difference | None = None
    corrected: float = 1.0  # p-value after Holm's correction
    reason: str = ""

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 0.05."""
        return self.found is not None and self.corrected < LEVEL


@dataclass(frozen=True)
class BoardRow:
    """A method on a data set; its rank is 1 + the methods that are significantly better."""

    cell: CellResult
    scores: Scores
    rank: int
    gain: CellDifference  # of tuned over default settings


@dataclass(frozen=True)
class Board:
    """All methods on one data set, best first; `failed` have no scores."""

    dataset: str
    rows: list[BoardRow]
    failed: list[CellResult]
    differences: list[CellDifference]

    @property
    def zero_shot(self) -> dict[str, float]:
        """Scores of the features before any training, the same for all methods."""
        return next((row.scores.zero_shot for row in self.rows if row.scores.zero_shot), {})


@dataclass(frozen=True)
class Overall:
    """Ranks over data sets of the methods with scores on all of them, best first.

    Attributes:
        mean_ranks: Method -> mean over data sets of the rank of its mean score.
        p: Of Friedman's test that all are equal; None where `reason` says why.
        critical_difference: Of mean ranks (Nemenyi, level 0.05).
    """

    datasets: int
    mean_ranks: dict[str, float]
    critical_difference: float = 0.0
    statistic: float = 0.0
    p: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Leaderboard:
    """The boards of all data sets and the ranks over them."""

    metric: str
    budget: dict[str, int]
    boards: list[Board]
    overall: Overall


def read_leaderboard(folder: Path) -> Leaderboard:
    """Make the leaderboard of a folder of results, in the order of their names.

    Raises:
        ConfigError: If there is none.
        DataError: If one is damaged, or they are no results of one benchmark.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise ConfigError(str(folder), ["holds no results of a benchmark. Allowed: finished cells"])
    return leaderboard([read_cell(file) for file in files])


def finished_leaderboard(folder: RunFolder, plan: Benchmark) -> Leaderboard:
    """Make the leaderboard of the finished cells, in the order of the plan.

    Raises:
        ConfigError: If no cell is finished.
        DataError: If a result is damaged.
    """
    files = [file_of(folder.results, cell.dataset, cell.method) for cell in plan.cells]
    done = [read_cell(file) for file in files if file.exists()]
    if not done:
        raise ConfigError(str(folder), ["has no finished cell yet. Allowed: after the first one"])
    return leaderboard(done)


def leaderboard(cells: Sequence[CellResult]) -> Leaderboard:
    """Rank the cells within each data set, and the methods over all data sets.

    p-values are corrected (Holm) for all pairs of a data set, and for all its gains by tuning.

    Raises:
        DataError: If they are no results of one benchmark.
    """
    first = cells[0]
    for cell in cells:
        if (cell.metric, cell.budget) != (first.metric, first.budget):
            raise DataError(f"{cell.method} on {cell.dataset}: has another budget than the others")
    names = dict.fromkeys(cell.dataset for cell in cells)
    boards = [_board([c for c in cells if c.dataset == name], first.metric) for name in names]
    return Leaderboard(first.metric, first.budget, boards, _overall(boards, first.metric))


def _board(cells: Sequence[CellResult], metric: str) -> Board:
    scored = [(cell, cell.tuned) for cell in cells if cell.tuned]
    scored.sort(key=lambda pair: (-pair[1].metrics[metric], pair[0].method))
    _check_one_test_set(cells[0].dataset, [scores for _, scores in scored])
    pairs = [
        _difference(a.method, b.method, one, other, metric)
        for (a, one), (b, other) in combinations(scored, 2)
    ]
    pairs = _corrected(pairs)
    gains = _corrected([_gain(cell, scores, metric) for cell, scores in scored])
    worse = [pair.worse for pair in pairs if pair.significant]
    rows = [
        BoardRow(cell, scores, 1 + worse.count(cell.method), gain)
        for (cell, scores), gain in zip(scored, gains, strict=True)
    ]
    return Board(cells[0].dataset, rows, [cell for cell in cells if not cell.tuned], pairs)


def _gain(cell: CellResult, tuned: Scores, metric: str) -> CellDifference:
    if cell.default is None:
        return CellDifference(cell.method, "default", reason="the default setting has no scores")
    return _difference(cell.method, "default", tuned, cell.default, metric)


def _difference(better: str, worse: str, one: Scores, other: Scores, metric: str) -> CellDifference:
    first, second = ({part.seed: part.metrics[metric] for part in s.parts} for s in (one, other))
    common = sorted(first.keys() & second.keys())
    try:
        found = paired_t([first[seed] for seed in common], [second[seed] for seed in common])
    except ValueError as error:
        return CellDifference(better, worse, reason=str(error))
    return CellDifference(better, worse, found)


def _corrected(pairs: Sequence[CellDifference]) -> list[CellDifference]:
    adjusted = iter(holm([pair.found.p for pair in pairs if pair.found]))
    return [replace(pair, corrected=next(adjusted)) if pair.found else pair for pair in pairs]


def _check_one_test_set(dataset: str, scores: Sequence[Scores]) -> None:
    if len({(each.dataset_fingerprint, each.test_images) for each in scores}) > 1:
        problem = "its cells were scored on different images"
        raise DataError(f"{dataset}: {problem}. Allowed: results of the same images")


def _overall(boards: Sequence[Board], metric: str) -> Overall:
    """Rank the methods that all data sets have scores of."""
    table = [{row.cell.method: row.scores.metrics[metric] for row in b.rows} for b in boards]
    methods = [name for name in table[0] if all(name in column for column in table)]
    if len(methods) < 2:
        return Overall(len(table), {}, reason="fewer than two methods have scores on all data sets")
    scores = np.array([[column[name] for name in methods] for column in table])
    means = dict(zip(methods, map(float, ranks(scores).mean(0)), strict=True))
    means = dict(sorted(means.items(), key=lambda item: (item[1], item[0])))
    try:
        statistic, p = friedman(scores)
    except ValueError as error:
        return Overall(len(table), means, reason=str(error))
    difference = critical_difference(len(methods), len(table))
    return Overall(len(table), means, difference, statistic, p)
