"""Friedman's and Nemenyi's tests against their equations and against published tables."""

import numpy as np
import pytest

from dmlray.evaluation.rank_tests import critical_difference, friedman, ranks


def test_ranks_count_from_the_best_and_average_ties() -> None:
    assert ranks(np.array([[0.1, 0.3, 0.2], [0.5, 0.5, 0.1]])).tolist() == [
        [3, 1, 2],
        [1.5, 1.5, 3],
    ]


def test_friedman_is_its_equation() -> None:
    scores = np.random.default_rng(0).random((7, 4))
    n, k = scores.shape
    mean = np.array([[1 + (row > value).sum() for value in row] for row in scores]).mean(0)
    expected = 12 * n / (k * (k + 1)) * ((mean**2).sum() - k * (k + 1) ** 2 / 4)
    statistic, p = friedman(scores)
    assert statistic == pytest.approx(expected)
    assert 0 < p < 1


def test_friedman_finds_a_method_that_always_wins() -> None:
    scores = np.random.default_rng(1).random((12, 3)) * 0.1
    scores[:, 0] += 1
    assert friedman(scores)[1] < 0.01


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        ([[0.1, 0.2]] * 3, "2 methods on 3 data sets"),
        ([[0.1, 0.2, 0.3]], "3 methods on 1 data sets"),
        ([[0.2, 0.2, 0.2], [0.1, 0.1, 0.1]], "all scores are tied"),
    ],
)
def test_too_little_is_no_test(scores: list[list[float]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        friedman(np.array(scores))


@pytest.mark.parametrize(
    ("methods", "q"), [(2, 1.960), (3, 2.343), (4, 2.569), (5, 2.728), (10, 3.164)]
)
def test_critical_values_are_those_of_the_table(methods: int, q: float) -> None:
    """Demsar, JMLR 2006, table 5a."""
    expected = q * (methods * (methods + 1) / (6 * 14)) ** 0.5
    assert critical_difference(methods, 14) == pytest.approx(expected, rel=1e-3)
