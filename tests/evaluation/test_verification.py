"""Comparisons and thresholds: equal to loops over pairs, to scikit-learn and to the definitions."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from sklearn.metrics import precision_recall_curve, roc_curve
from torch import Tensor

from dmlray.errors import DataError
from dmlray.evaluation import neighbours
from dmlray.evaluation.comparisons import BINS, Comparisons, Histograms, edge
from dmlray.evaluation.task import RetrievalTask
from dmlray.evaluation.verification import SHOWN_BINS, Verification, choose, verify
from tests.evaluation import slow
from tests.evaluation.test_task import COUNT, drawn_rows, drawn_task

WIDTH = 2 / BINS


def slow_pairs(rows: Tensor, task: RetrievalTask) -> list[tuple[int, float, bool]]:
    """Each comparison: the query's label, the cosine and whether it is of one class."""
    labels = task.labels.tolist()
    queries = range(len(labels)) if task.queries is None else task.queries.tolist()
    return [
        (labels[query], float(rows[query].double() @ rows[item].double()), same)
        for query in queries
        for item in slow.ranked(rows, task, query)
        for same in [labels[query] == labels[item]]
    ]


def of_kind(pairs: list[tuple[int, float, bool]], same: bool) -> np.ndarray:
    return np.array([cosine for _, cosine, kind in pairs if kind == same])


def blobs(seed: int, classes: int, images: int, noise: float = 0.7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(images)
    centres = torch.randn(classes, 16, generator=generator)[labels]
    drawn = centres + noise * torch.randn(len(labels), 16, generator=generator)
    return torch.nn.functional.normalize(drawn), labels


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    grouped=st.booleans(),
    neighbouring=st.booleans(),
    rows_per_block=st.sampled_from([7, 512]),
)
def test_histograms_are_those_of_a_loop_exactly_where_cosines_are_exact(
    seed: int, grouped: bool, neighbouring: bool, rows_per_block: int
) -> None:
    task = drawn_task(seed, grouped=grouped, neighbouring=neighbouring)
    rows = slow.rows_with_ties(seed, COUNT)  # all cosines are edges of bins, 1 and -1 among them
    edges = np.array([*(edge(index) for index in range(BINS + 1)), np.inf])
    pairs = slow_pairs(rows, task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ROWS", rows_per_block)
        found = Comparisons([rows], task).histograms()
    for counts, same in ((found.positives, True), (found.negatives, False)):
        assert counts.tolist() == np.histogram(of_kind(pairs, same), edges)[0].tolist()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), grouped=st.booleans(), ties=st.booleans())
def test_matches_of_each_class_are_those_of_a_loop(seed: int, grouped: bool, ties: bool) -> None:
    task, rows = drawn_task(seed, grouped=grouped), drawn_rows(seed, ties).double()
    limits = [-1.0, -0.5, 0.0, 0.5, 1.0]
    found = Comparisons([rows], task).count_matches(limits)
    pairs = slow_pairs(rows, task)
    names = sorted(set(task.of_queries(task.labels).tolist()))
    for number, name in enumerate(names):
        for same, total, matched in (
            (True, found.positives, found.matched_positives),
            (False, found.negatives, found.matched_negatives),
        ):
            cosines = [cosine for label, cosine, kind in pairs if (label, kind) == (name, same)]
            assert total[number] == len(cosines)
            expected = [sum(cosine >= limit for cosine in cosines) for limit in limits]
            assert matched[number].tolist() == expected


def test_members_count_by_their_weights() -> None:
    rows, labels = blobs(0, 10, 6)
    other = blobs(1, 10, 6)[0]
    side_by_side = torch.cat([rows * 0.75**0.5, other * 0.25**0.5], 1)
    joint = Comparisons([side_by_side], RetrievalTask(labels)).histograms()
    found = Comparisons([rows, other], RetrievalTask(labels), (3.0, 1.0)).histograms()
    for one, two in zip(joint, found, strict=True):
        assert int((one.cumsum(0) - two.cumsum(0)).abs().max()) <= 4  # rounded across an edge


@pytest.mark.parametrize("seed", range(3))
def test_thresholds_are_those_of_the_roc_curve(seed: int) -> None:
    rows, labels = blobs(seed, 40, 8)
    held_out, test = Comparisons([rows], RetrievalTask(labels)), blobs(seed + 9, 30, 8)
    pairs = slow_pairs(rows, held_out.task)
    truth, cosines = [same for *_, same in pairs], [cosine for _, cosine, _ in pairs]
    fmr, tmr, limits = roc_curve(truth, cosines, drop_intermediate=False)
    found = verify(held_out, Comparisons([test[0]], RetrievalTask(test[1]))).thresholds
    assert [*found] == ["fmr_1e-2", "fmr_1e-3", "fmr_1e-4", "best_f1"]
    for name, rate in (("fmr_1e-2", 1e-2), ("fmr_1e-3", 1e-3), ("fmr_1e-4", 1e-4)):
        last = np.flatnonzero(fmr <= rate)[-1]  # the lowest cosine that still is low enough
        beyond = np.flatnonzero(fmr > rate)[0]  # the next one, which no longer is
        assert limits[beyond] < found[name].cosine <= limits[last] + WIDTH
        assert found[name].fmr <= rate
        assert found[name].fmr == (of_kind(pairs, False) >= found[name].cosine).mean()
        assert found[name].fnmr == pytest.approx(1 - tmr[last], abs=5e-3)
    precision, recall, _ = precision_recall_curve(truth, cosines)
    best = found["best_f1"]
    matched = np.array(cosines) >= best.cosine
    f1 = 2 * matched[truth].sum() / (matched.sum() + sum(truth))
    assert f1 == pytest.approx((2 * precision * recall / (precision + recall)).max(), abs=2e-3)


def test_thresholds_are_the_lowest_edge_that_is_low_enough_and_checked_on_other_classes() -> None:
    rows, labels = blobs(3, 40, 8)
    tested, names = blobs(4, 25, 6)
    found = verify(
        Comparisons([rows], RetrievalTask(labels)), Comparisons([tested], RetrievalTask(names))
    )
    chosen, unseen = (
        slow_pairs(rows, RetrievalTask(labels)),
        slow_pairs(tested, RetrievalTask(names)),
    )
    assert (found.classes, found.images) == (40, 320)
    assert (found.positives, found.negatives) == (320 * 7, 320 * 312)
    for name, rate in (("fmr_1e-2", 1e-2), ("fmr_1e-3", 1e-3)):
        threshold = found.thresholds[name]
        assert (of_kind(chosen, False) >= threshold.cosine - WIDTH).mean() > rate
        assert threshold.fnmr == (of_kind(chosen, True) < threshold.cosine).mean()
        wrong = (of_kind(unseen, False) >= threshold.cosine).mean()
        missed = (of_kind(unseen, True) < threshold.cosine).mean()
        assert threshold.test_fmr.value == pytest.approx(wrong, abs=1e-12)
        assert threshold.test_fnmr.value == pytest.approx(missed, abs=1e-12)
        assert threshold.test_fnmr.low < missed < threshold.test_fnmr.high


def test_the_interval_is_wide_where_classes_differ_and_covers_the_truth() -> None:
    rows, labels = blobs(5, 60, 6)
    _, names = blobs(6, 60, 6)
    easy, hard = blobs(6, 60, 6, noise=0.05)[0], blobs(6, 60, 6, noise=0.7)[0]
    mixed = torch.where((names % 2 == 0)[:, None], easy, hard)
    held_out = Comparisons([rows], RetrievalTask(labels))

    def half(tested: Tensor) -> float:
        rate = verify(held_out, Comparisons([tested], RetrievalTask(names)))
        missed = rate.thresholds["fmr_1e-3"].test_fnmr
        return (missed.high - missed.low) / max(missed.value, 1e-9)

    assert half(mixed) > half(hard) > 0


def test_rates_that_cannot_be_measured_are_left_out() -> None:
    rows, labels = blobs(0, 5, 5)  # 500 negative comparisons: 5 expected at 1e-2, 0.5 at 1e-3
    task = RetrievalTask(labels)
    found = verify(Comparisons([rows], task), Comparisons([rows], task))
    assert [*found.thresholds] == ["fmr_1e-2", "best_f1"]
    one = RetrievalTask(torch.zeros(5, dtype=torch.int64))
    assert verify(Comparisons([rows[:5]], one), Comparisons([rows], task)).thresholds == {}
    single = verify(Comparisons([rows], task), Comparisons([rows[:5]], one)).thresholds["best_f1"]
    assert single.test_fmr is None
    assert single.test_fnmr.low is None
    same = torch.ones(25, 1)  # all cosines are 1: no threshold is without false matches
    assert [*verify(Comparisons([same], task), Comparisons([rows], task)).thresholds] == ["best_f1"]


def test_the_best_f1_is_the_highest_of_equal_edges() -> None:
    positives, negatives = torch.zeros(2, BINS + 1, dtype=torch.int64)
    positives[12_000], negatives[4_000] = 10, 10_000
    assert choose(Histograms(positives, negatives)) == {
        "fmr_1e-2": 4_001,
        "fmr_1e-3": 4_001,
        "best_f1": 12_000,
    }


def test_what_is_kept_counts_all_comparisons_and_is_read_as_written() -> None:
    rows, labels = blobs(7, 20, 6)
    comparisons = Comparisons([rows], RetrievalTask(labels))
    found = verify(comparisons, comparisons)
    for counts, total in (
        (found.positive_counts, found.positives),
        (found.negative_counts, found.negatives),
    ):
        assert (len(counts), sum(counts)) == (SHOWN_BINS, total)
    negatives = of_kind(slow_pairs(rows, RetrievalTask(labels)), False)
    limits = np.linspace(-1, 1, SHOWN_BINS + 1)
    expected = np.histogram(negatives, limits)[0]
    assert np.abs(np.cumsum(found.negative_counts) - np.cumsum(expected)).max() <= 2
    assert TypeAdapter(Verification).validate_python(asdict(found)) == found


def test_embeddings_that_are_not_finite_are_refused() -> None:
    rows, labels = blobs(0, 5, 5)
    rows[3, 2] = torch.nan
    with pytest.raises(DataError, match="verification: 1 embeddings hold NaN"):
        Comparisons([rows], RetrievalTask(labels)).histograms()
