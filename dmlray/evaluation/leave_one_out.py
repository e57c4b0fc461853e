"""What each member contributes to an ensemble, and how alike the members' hits are."""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

from dmlray.evaluation.matmul import add_product
from dmlray.evaluation.neighbours import new_block
from dmlray.evaluation.products import Part, Similarity, grown
from dmlray.evaluation.ranking import Ranking
from dmlray.evaluation.task import RetrievalTask


def without_each(
    members: Sequence[Tensor],
    task: RetrievalTask,
    metrics: Sequence[str],
    weights: Sequence[float],
    device: torch.device,
) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Score the whole ensemble, and the ensembles without member 0, 1, ..., L - 1.

    Args:
        members: At least two, unit rows (N, D) of any width D.
        task: As of `retrieval_scores`.
        metrics: Names of retrieval metrics.
        weights: Factor of each member's cosines.
        device: Where to compute.
    """
    ranking = Ranking("ensemble", task.to(device), metrics)
    parts = [
        Part(task.of_queries(member), task.of_gallery(member), weight)
        for member, weight in zip(members, weights, strict=True)
    ]
    exact = [_similarity(parts, left_out, device) for left_out in (None, *range(len(parts)))]
    block = new_block(torch.empty(task.gallery_size, 0, device=device))
    sums = torch.zeros(len(exact), len(metrics), dtype=torch.float64, device=device)
    for numbers in torch.arange(task.query_count, device=device).split(len(block)):
        sums += _sums(parts, exact, ranking, numbers, block[: len(numbers)])
    whole, *others = [ranking.means(row) for row in sums]
    return whole, others


def agreement(hits: Tensor) -> Tensor:
    """Return for each two members the share of queries that both hit or both miss.

    Args:
        hits: (L, Q) in {0, 1}, whether each member's nearest item is of the query's class.

    Returns:
        (L, L), 1 on the diagonal.
    """
    hits = hits.double()
    return (hits @ hits.T + (1 - hits) @ (1 - hits).T) / hits.shape[1]


def _similarity(parts: Sequence[Part], left_out: int | None, device: torch.device) -> Similarity:
    """The sum of all parts but one, which is subtracted from the computed sum of all."""
    whole: Similarity | None = reduce(
        lambda sum_, part: grown(sum_, part, torch.float32), parts, None
    )
    assert whole is not None
    if left_out is None:
        return whole._replace(error=whole.error.to(device))
    subtracted = grown(whole, parts[left_out], torch.float32)  # it rounds as adding does
    kept = [part for number, part in enumerate(parts) if number != left_out]
    return Similarity(kept, subtracted.error.to(device), whole.size)


def _sums(
    parts: Sequence[Part],
    exact: Sequence[Similarity],
    ranking: Ranking,
    numbers: Tensor,
    block: Tensor,
) -> Tensor:
    """Sums of the metrics over queries numbers (B,): of all parts, then without each (L + 1, M)."""
    block.zero_()
    for part in parts:
        _add(block, part, numbers, part.weight)
    whole = block.clone()
    sums = []
    for left_out, similarity in zip((None, *range(len(parts))), exact, strict=True):
        block.copy_(whole)
        if left_out is not None:
            _add(block, parts[left_out], numbers, -parts[left_out].weight)
        ranking.hide(block, numbers)
        sums.append(ranking.sums(block, numbers, similarity))
    return torch.stack(sums)


def _add(block: Tensor, part: Part, numbers: Tensor, weight: float) -> None:
    rows = part.queries[numbers[0] : numbers[-1] + 1].to(block)
    add_product(block, rows, part.gallery.to(block), beta=1.0, weight=weight)
