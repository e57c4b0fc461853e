"""Scores of an ensemble that grows member by member, without looking at earlier members again."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dmlray.evaluation.input_checks import check_finite, check_shapes
from dmlray.evaluation.matmul import add_product
from dmlray.evaluation.metrics import STANDARD
from dmlray.evaluation.neighbours import ROWS
from dmlray.evaluation.products import Part, Similarity, grown
from dmlray.evaluation.ranking import Ranking
from dmlray.evaluation.task import RetrievalTask

MOST_IMAGES = 10_000  # 400 MB of similarities; beyond that use `ensemble_scores.prefix_scores`


class Growing:
    """Keeps the similarities (Q, G) in float32, to which each member (N, D) adds its own."""

    def __init__(self, task: RetrievalTask, metrics: Sequence[str] = STANDARD) -> None:
        self._task, self._ranking = task, Ranking("ensemble", task, metrics)
        self._similarities = torch.zeros(task.query_count, task.gallery_size)
        self._exact: Similarity | None = None  # of the members so far

    def add(self, member: Tensor, weight: float = 1.0) -> dict[str, float]:
        """Scores with this member, unit rows (N, D), which stays; `weight` is of its cosines."""
        return self._score(member, weight, keep=True)

    def with_one_more(self, member: Tensor, weight: float = 1.0) -> dict[str, float]:
        """Scores as if this member were added."""
        return self._score(member, weight, keep=False)

    def _score(self, member: Tensor, weight: float, keep: bool) -> dict[str, float]:
        check_shapes("ensemble member", member, self._task.labels)
        check_finite("ensemble member", member)
        part = Part(self._task.of_queries(member), self._task.of_gallery(member), weight)
        exact = grown(self._exact, part, torch.float32)
        if keep:
            self._exact = exact
        queries, gallery = part.queries.float(), part.gallery.float()
        sums = []
        for numbers in torch.arange(len(queries)).split(ROWS):
            block = self._similarities[numbers[0] : numbers[-1] + 1]
            block = block if keep else block.clone()
            rows = queries[numbers[0] : numbers[-1] + 1]
            add_product(block, rows, gallery, beta=1.0, weight=weight)
            self._ranking.hide(block, numbers)
            sums.append(self._ranking.sums(block, numbers, exact))
        return self._ranking.means(sum(sums[1:], sums[0]))
