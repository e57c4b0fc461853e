"""Scores of an ensemble that grows member by member, without looking at earlier members again."""

import torch
from torch import Tensor

from dmlray.evaluation.input_checks import check_depths, check_finite, check_pairs, check_shapes
from dmlray.evaluation.matmul import add_product
from dmlray.evaluation.neighbours import ROWS, hide_self
from dmlray.evaluation.products import Part, Similarity, grown
from dmlray.evaluation.ranking import SelfRetrieval

MOST_IMAGES = 10_000  # 400 MB of similarities; beyond that use `merge.prefix_scores`


class Growing:
    """Keeps the similarities (N, N) in float32, to which each member (N, D) adds its own."""

    def __init__(self, labels: Tensor, recall_at: tuple[int, ...]) -> None:
        check_pairs("ensemble", labels)
        check_depths("recall_at", recall_at, len(labels) - 1)
        self._labels = labels
        self._scores = SelfRetrieval(labels, recall_at)
        self._similarities = torch.zeros(len(labels), len(labels))
        self._exact: Similarity | None = None  # of the members so far

    def add(self, member: Tensor, weight: float = 1.0) -> dict[str, float]:
        """Scores with this member, unit rows (N, D), which stays; `weight` is of its cosines."""
        return self._score(member, weight, keep=True)

    def with_one_more(self, member: Tensor, weight: float = 1.0) -> dict[str, float]:
        """Scores as if this member were added."""
        return self._score(member, weight, keep=False)

    def _score(self, member: Tensor, weight: float, keep: bool) -> dict[str, float]:
        check_shapes("ensemble member", member, self._labels)
        check_finite("ensemble member", member)
        exact = grown(self._exact, Part(member, member, weight), torch.float32)
        if keep:
            self._exact = exact
        member = member.float()
        sums = []
        for numbers in torch.arange(len(member)).split(ROWS):
            block = self._similarities[numbers[0] : numbers[-1] + 1]
            block = block if keep else block.clone()
            rows = member[numbers[0] : numbers[-1] + 1]
            add_product(block, rows, member, beta=1.0, weight=weight)
            hide_self(block, numbers)
            sums.append(self._scores.sums(block, numbers, exact))
        return self._scores.means(sum(sums[1:], sums[0]))
