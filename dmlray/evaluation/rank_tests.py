"""Tests of methods over several data sets by their ranks. N data sets, k methods."""

import math

import numpy as np

LEVEL = 0.05


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank scores (N, k) within each row: 1 for the largest, ties averaged."""
    from scipy import stats  # half a second to import, needed only here

    ranked: np.ndarray = stats.rankdata(-scores, axis=1)
    return ranked


def friedman(scores: np.ndarray) -> tuple[float, float]:
    """Test whether all methods of scores (N, k) are equal: (chi square, p), corrected for ties.

    Raises:
        ValueError: If there are fewer than 2 data sets or 3 methods, or all scores are tied.

    Source: Friedman, The use of ranks, JASA 1937; Demsar, JMLR 2006, section 3.2.2.
    """
    from scipy import stats

    datasets, methods = scores.shape
    if datasets < 2 or methods < 3:
        raise ValueError(f"{methods} methods on {datasets} data sets; it needs 3 methods on 2")
    if (scores == scores[:, :1]).all():
        raise ValueError("all scores are tied")
    found = stats.friedmanchisquare(*scores.T)
    return float(found.statistic), float(found.pvalue)


def critical_difference(methods: int, datasets: int) -> float:
    """Difference of mean ranks from which on two methods differ at level 0.05 (Nemenyi).

    Source: Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 2006.
    """
    from scipy import stats

    q = float(stats.studentized_range.ppf(1 - LEVEL, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * datasets))
