"""Without one member an ensemble scores what the concatenation of the others does."""

from itertools import combinations

import pytest
import torch

from dmlray.evaluation import neighbours
from dmlray.evaluation.leave_one_out import agreement, without_each
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from tests.evaluation import slow

CPU = torch.device("cpu")
METRICS = standard_metrics((1, 2))
WEIGHTS = (1.0, 0.5, 2.0)


def joined(members: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    return torch.cat([w**0.5 * m for w, m in zip(weights, members, strict=True)], 1)


@pytest.mark.parametrize("rows", [9, 512])
@pytest.mark.parametrize("queries", [None, torch.arange(3, 130, 4)])
def test_it_equals_the_concatenation_of_the_others(
    rows: int, queries: torch.Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "ROWS", rows)
    members = [slow.unit_rows(seed, 130, width) for seed, width in enumerate((4, 7, 12))]
    task = RetrievalTask(slow.unequal_labels(0, 130), queries)
    whole, others = without_each(members, task, METRICS, WEIGHTS, CPU)
    assert whole == pytest.approx(
        retrieval_scores(joined(members, list(WEIGHTS)), task, METRICS), abs=1e-6
    )
    for left_out, found in enumerate(others):
        rest = [number for number in range(3) if number != left_out]
        rows_ = joined([members[n] for n in rest], [WEIGHTS[n] for n in rest])
        assert found == pytest.approx(retrieval_scores(rows_, task, METRICS), abs=1e-6)


def test_a_member_that_is_there_twice_adds_nothing_but_ties() -> None:
    """What is left after subtracting equals the member alone, whose equal images stay equal."""
    member = slow.unit_rows(0, 40, 6)
    member[20:] = member[:20]
    task = RetrievalTask(torch.arange(40) % 7)
    whole, others = without_each([member, member], task, METRICS, (1.0, 1.0), CPU)
    alone = retrieval_scores(member, task, METRICS)
    assert whole == alone
    assert others == [alone, alone]


def test_agreement_is_the_share_of_queries_that_two_members_judge_alike() -> None:
    hits = torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 1, 1], [0, 0, 1, 1, 0]])
    found = agreement(hits)
    for one, other in combinations(range(3), 2):
        alike = sum(int(a == b) for a, b in zip(hits[one], hits[other], strict=True))
        assert found[one, other] == found[other, one] == pytest.approx(alike / 5)
    assert found.diagonal().tolist() == [1, 1, 1]
