"""Confusions and suspected labels, against loops over all pairs."""

from itertools import combinations

import numpy as np

from dmlray.evaluation.errors import confusions, suspects
from dmlray.evaluation.neighbours import nearest
from tests.evaluation import slow

LABELS = np.arange(40) // 5


def test_confusions_equal_a_count_over_queries() -> None:
    rows = slow.unit_rows(4, 40)
    cosines = (rows @ rows.T).fill_diagonal_(-2)
    expected: dict[tuple[int, int], int] = {}
    for query in range(40):
        ends = sorted((int(LABELS[query]), int(LABELS[int(cosines[query].argmax())])))
        if ends[0] != ends[1]:
            expected[ends[0], ends[1]] = expected.get((ends[0], ends[1]), 0) + 1
    found = confusions(LABELS, nearest(rows, 3))
    assert {(one.first, one.second): one.images for one in found} == expected
    assert [one.images for one in found] == sorted(expected.values(), reverse=True)
    for one in found:
        assert {LABELS[one.query], LABELS[one.neighbour]} == {one.first, one.second}
        assert int(cosines[one.query].argmax()) == one.neighbour


def test_suspects_are_more_alike_than_nearly_all_pairs_of_a_class() -> None:
    rows = slow.unit_rows(4, 40)
    rows[37] = rows[2]  # a duplicate with another label
    cosines = rows @ rows.T
    pairs = list(combinations(range(40), 2))
    within = [float(cosines[i, j]) for i, j in pairs if LABELS[i] == LABELS[j]]
    threshold = np.percentile(within, 99.9)
    expected = {(i, j) for i, j in pairs if LABELS[i] != LABELS[j] and cosines[i, j] > threshold}
    found = suspects(rows, LABELS, nearest(rows, 39))
    assert {(one.first, one.second) for one in found} == expected
    assert (found[0].first, found[0].second) == (2, 37)
    assert [one.similarity for one in found] == sorted((s.similarity for s in found), reverse=True)


def test_classes_of_one_image_have_no_threshold() -> None:
    rows = slow.unit_rows(4, 4)
    assert suspects(rows, np.arange(4), nearest(rows, 2)) == []
    assert confusions(np.zeros(4, dtype=np.int64), nearest(rows, 2)) == []
