"""An ensemble that grows scores what the concatenation of its members does, at every size."""

import pytest
import torch

from dmlray.evaluation import incremental as module
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.ensemble_selection import greedy
from dmlray.evaluation.incremental import Growing
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from tests.evaluation import slow

DEPTHS = (1, 2, 8)


def members_of(widths: tuple[int, ...], count: int = 130) -> list[torch.Tensor]:
    return [slow.unit_rows(seed, count, width) for seed, width in enumerate(widths)]


@pytest.mark.parametrize("rows", [9, 512])
def test_growing_equals_concatenation(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS", rows)
    members, labels = members_of((4, 7, 1, 12)), slow.unequal_labels(0, 130)
    weights = (1.0, 0.5, 2.0, 1.0)
    ensemble, found = Growing(RetrievalTask(labels), standard_metrics(DEPTHS)), []
    for member, weight in zip(members, weights, strict=True):
        foretold = ensemble.with_one_more(member, weight)
        found.append(ensemble.add(member, weight))
        assert foretold == found[-1]
    expected = prefix_scores(
        members, RetrievalTask(labels), standard_metrics(DEPTHS), weights=weights
    )
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
    joined = torch.cat([w**0.5 * m for w, m in zip(weights, members, strict=True)], 1)
    assert found[-1] == pytest.approx(
        retrieval_scores(joined, RetrievalTask(labels), standard_metrics(DEPTHS)), abs=1e-6
    )


def test_greedy_takes_what_helps_and_nothing_that_harms() -> None:
    labels = torch.arange(40) % 8
    good = torch.nn.functional.one_hot(labels, 8).float()
    noise = [slow.unit_rows(seed, 40, 3) for seed in range(3)]
    half = torch.nn.functional.normalize(good + 0.9 * slow.unit_rows(9, 40, 8))
    chosen, score = greedy([*noise, half, good], RetrievalTask(labels), "map_at_r")
    assert chosen == [4]
    assert score == 1


def test_greedy_is_never_worse_than_the_best_member_or_the_whole_as_it_adds() -> None:
    members, labels = members_of((5, 6, 7, 4)), slow.unequal_labels(0, 130)
    chosen, score = greedy(members, RetrievalTask(labels), "map_at_r")
    alone = [
        retrieval_scores(member, RetrievalTask(labels), standard_metrics((1,)))["map_at_r"]
        for member in members
    ]
    assert chosen[0] == max(range(4), key=alone.__getitem__)
    assert score >= max(alone)
    again = prefix_scores(
        [members[i] for i in chosen], RetrievalTask(labels), standard_metrics((1,))
    )[-1]
    assert score == pytest.approx(again["map_at_r"], abs=1e-6)
