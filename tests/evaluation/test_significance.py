"""Tests of differences, against SciPy and against loops over the definition."""

import numpy as np
import pytest
from scipy import stats

from dmlray.evaluation import significance
from dmlray.evaluation.significance import class_bootstrap, holm, paired_t

A, B = [0.61, 0.64, 0.60, 0.66, 0.63], [0.60, 0.61, 0.61, 0.62, 0.60]


def test_paired_t_equals_scipy() -> None:
    found, expected = paired_t(A, B), stats.ttest_rel(A, B)
    interval = expected.confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(A) - np.mean(B))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(expected.pvalue)
    assert found.pairs == 5


def test_paired_t_of_equal_scores_is_no_difference() -> None:
    found = paired_t(A, A)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_too_few_seeds_and_no_spread_are_not_tested() -> None:
    with pytest.raises(ValueError, match="1 common seeds"):
        paired_t([0.5], [0.4])
    with pytest.raises(ValueError, match="no spread"):
        paired_t([0.75, 0.5], [0.5, 0.25])


@pytest.mark.parametrize("queries", [3, 7, 24, 40, 99, 1000])
def test_rounding_is_no_spread(queries: int) -> None:
    """Scores are shares of the queries: equal gains differ in their last bits."""
    hits = [queries * (2 + seed) // 10 for seed in range(5)]
    lower, higher = [n / queries for n in hits], [(n + 1) / queries for n in hits]
    with pytest.raises(ValueError, match="no spread"):
        paired_t(higher, lower)
    assert paired_t(higher, [(n + 1) * (1 / queries) for n in hits]).p == 1
    higher[4] += 1 / queries
    expected = stats.ttest_rel(higher, lower)
    assert paired_t(higher, lower).p == pytest.approx(expected.pvalue)


def queries_of_classes() -> list[tuple[np.ndarray, np.ndarray]]:
    """The metric of each query of two runs, for each of 30 classes of 2 to 9 queries."""
    rng = np.random.default_rng(5)
    sizes = rng.integers(2, 10, 30)
    return [
        ((rng.random(size) < 0.5 + 0.1 * rng.random()).astype(float), rng.random(size).round())
        for size in sizes
    ]


Sums = tuple[np.ndarray, np.ndarray, np.ndarray]


def sums(classes: list[tuple[np.ndarray, np.ndarray]]) -> Sums:
    first, second = ([float(pair[i].sum()) for pair in classes] for i in (0, 1))
    return np.array(first), np.array(second), np.array([len(pair[0]) for pair in classes])


@pytest.mark.parametrize("cells", [30, 1000, 10**6])
def test_bootstrap_equals_a_loop_over_queries(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(significance, "_CELLS", cells)
    classes = queries_of_classes()
    found = class_bootstrap(*sums(classes), resamples=400, seed=3)
    rng, values = np.random.default_rng(3), []
    for _ in range(400):
        drawn = [classes[number] for number in rng.integers(30, size=30)]
        one, other = (np.concatenate([pair[i] for pair in drawn]) for i in (0, 1))
        values.append(one.mean() - other.mean())
    whole = [np.concatenate([pair[i] for pair in classes]).mean() for i in (0, 1)]
    assert found.value == pytest.approx(whole[0] - whole[1])
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(values, [2.5, 97.5])))
    below, above = sum(v <= 0 for v in values), sum(v >= 0 for v in values)
    assert found.p == pytest.approx(2 * (min(below, above) + 1) / 401)
    assert found.pairs == 30


def test_bootstrap_interval_equals_scipy() -> None:
    first, second, queries = sums(queries_of_classes())
    found = class_bootstrap(first, second, queries)

    def ratio(a: np.ndarray, b: np.ndarray, n: np.ndarray, axis: int = -1) -> np.ndarray:
        return (a.sum(axis) - b.sum(axis)) / n.sum(axis)

    expected = stats.bootstrap(
        (first, second, queries), ratio, paired=True, n_resamples=10_000, method="percentile",
        random_state=1, vectorized=True,
    )  # fmt: skip
    width = found.high - found.low
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.05 * width)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.05 * width)


def test_bootstrap_repeats_itself_and_needs_two_classes() -> None:
    values = sums(queries_of_classes())
    assert class_bootstrap(*values) == class_bootstrap(*values)
    same = class_bootstrap(values[0], values[0], values[2])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="1 test class"):
        class_bootstrap(values[0][:1], values[1][:1], values[2][:1])


def test_holm_by_hand() -> None:
    # Ordered: 4 x 0.005, 3 x 0.01, 2 x 0.03, and 0.04, which may not fall below 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([]) == []
