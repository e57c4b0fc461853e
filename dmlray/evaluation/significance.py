"""Tests of the difference between two scores: paired by seed, or by test class.

Letters: n seeds, C test classes, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000
LEVEL = 0.05  # of significance; intervals cover 1 - LEVEL
_CELLS = 4_000_000  # drawn at once


@dataclass(frozen=True)
class Difference:
    """First score minus second.

    Attributes:
        low, high: 95 % confidence interval of the difference.
        p: Two-sided p-value of the hypothesis that there is no difference.
        pairs: Seeds or classes that the test is over.
    """

    value: float
    low: float
    high: float
    p: float
    pairs: int


def paired_t(first: Sequence[float], second: Sequence[float]) -> Difference:
    """Student's t test on the differences of scores (n,) of equal seeds.

    Raises:
        ValueError: If there are fewer than two pairs, or all differences are equal but not zero.
    """
    from scipy import stats  # half a second to import, needed only here

    differences = np.subtract(first, second, dtype=np.float64)
    n = len(differences)
    if n < 2:
        raise ValueError(f"{n} common seeds; a paired test needs two")
    value, spread = float(differences.mean()), float(differences.std(ddof=1))
    # Scores are means and their differences: a few units in the last place of the largest score.
    rounding = 8 * np.finfo(np.float64).eps * float(np.abs([first, second]).max())
    if float(np.abs(differences).max()) <= rounding:
        return Difference(0.0, 0.0, 0.0, 1.0, n)
    if spread <= rounding:  # a p-value of nothing but rounding
        raise ValueError("the differences of all seeds are equal, so that they have no spread")
    error = spread / n**0.5
    half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, n - 1))
    return Difference(value, value - half, value + half, p, n)


def class_bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    queries: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Difference:
    """Bootstrap over test classes, which are drawn with replacement, the same for both scores.

    Classes, not images: images of a class are not independent.

    Args:
        first: Sums (C,) of a metric over the queries of each class.
        second: The same of the other score.
        queries: (C,) how many queries of each class count.
        resamples: B.
        seed: Of the drawing.

    Returns:
        The difference of the means over all queries; its percentile interval; p is twice the share
        of resamples on the smaller side of zero, at least 2 / (B + 1).

    Raises:
        ValueError: If there are fewer than two classes.

    Source: Efron, Tibshirani, An Introduction to the Bootstrap, 1993, sections 13.3 and 16.4.
    """
    classes = len(queries)
    if classes < 2:
        raise ValueError(f"{classes} test class; a bootstrap over classes needs two")
    gaps = np.subtract(first, second, dtype=np.float64)
    generator = np.random.default_rng(seed)
    at_once = max(1, _CELLS // classes)
    drawn = [
        _drawn(generator, gaps, queries, min(at_once, resamples - start))
        for start in range(0, resamples, at_once)
    ]
    values = np.concatenate(drawn)
    low, high = np.quantile(values, [LEVEL / 2, 1 - LEVEL / 2])
    side = min(int((values <= 0).sum()), int((values >= 0).sum()))
    p = min(1.0, 2 * (side + 1) / (resamples + 1))
    return Difference(float(gaps.sum() / queries.sum()), float(low), float(high), p, classes)


def class_interval(values: np.ndarray, labels: np.ndarray) -> Difference | None:
    """The mean of a metric over queries with its interval, by a bootstrap over their classes.

    Args:
        values: Of each query (Q,); NaN for one that does not count.
        labels: Class of each query (Q,) int64.

    Returns:
        The mean's difference from zero; None if fewer than two classes have queries.
    """
    counted = ~np.isnan(values)
    queries = np.bincount(labels[counted])
    sums = np.bincount(labels[counted], values[counted])[queries > 0]
    if len(sums) < 2:
        return None
    return class_bootstrap(sums, np.zeros_like(sums), queries[queries > 0])


def holm(values: Sequence[float]) -> list[float]:
    """Adjust p-values for the number of tests, in the order given.

    Source: Holm, A simple sequentially rejective multiple test procedure, 1979.
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(np.argsort(values, kind="stable")):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


def _drawn(
    generator: np.random.Generator, gaps: np.ndarray, queries: np.ndarray, resamples: int
) -> np.ndarray:
    """Differences (resamples,) of the means over classes that are drawn anew each time."""
    chosen = generator.integers(len(gaps), size=(resamples, len(gaps)))
    values: np.ndarray = gaps[chosen].sum(1) / queries[chosen].sum(1)
    return values
