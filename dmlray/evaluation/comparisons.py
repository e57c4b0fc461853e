"""All comparisons of queries with a gallery, counted in blocks: the Q x G matrix never exists.

A comparison is positive between two images of one class, else negative. As in retrieval, no image
is compared with itself, nor with one of its own label and group.

Letters: Q queries, G gallery items, B rows of a block, M the largest class, T thresholds,
C classes of the queries.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dmlray.evaluation.input_checks import as_float, check_finite, check_shapes
from dmlray.evaluation.matmul import add_product
from dmlray.evaluation.neighbours import FEW_ROWS, new_block, within
from dmlray.evaluation.products import Part
from dmlray.evaluation.task import RetrievalTask

BINS = 16_384  # of cosines from -1 to 1: their width 2**-13 and their edges are exact in float32
_PER_UNIT = BINS // 2


class Histograms(NamedTuple):
    """Numbers (BINS + 1,) int64 of positive and negative comparisons by cosine.

    Bin k holds cosines from `edge(k)` to below `edge(k + 1)`; the last holds 1, and the first and
    the last what rounding puts beyond -1 and 1.
    """

    positives: Tensor
    negatives: Tensor


class ClassCounts(NamedTuple):
    """Comparisons (C,) of the queries of each class, and those (C, T) that reach each threshold."""

    positives: Tensor
    negatives: Tensor
    matched_positives: Tensor
    matched_negatives: Tensor


class _Block(NamedTuple):
    """Similarities (B, G) of queries numbers (B,), and those (B, M) to items of their class.

    `in_class` marks what is no padding, `counted` the positive comparisons.
    """

    numbers: Tensor
    similarities: Tensor
    same: Tensor
    in_class: Tensor
    counted: Tensor


def edge(index: int) -> float:
    """The least cosine of a bin."""
    return index / _PER_UNIT - 1


@dataclass(frozen=True, eq=False)
class Comparisons:
    """The comparisons of a task, by the mean of the members' cosines.

    Attributes:
        members: Unit rows (N, D) of all images by each member, of any width D.
        task: Who is compared with whom.
        weights: Factor of each member's cosines, above 0; default 1.
        device: Where to compute; default where the first member is.
    """

    members: Sequence[Tensor]
    task: RetrievalTask
    weights: Sequence[float] = ()
    device: torch.device | None = None

    def histograms(self) -> Histograms:
        """Count all comparisons by their cosine."""
        counts = torch.zeros(2, BINS + 1, dtype=torch.int64)
        for block in self._blocks():
            counts[0] += _histogram(block.same[block.counted])
            for rows in block.similarities.split(FEW_ROWS):
                counts[1] += _histogram(rows)
            counts[1] -= _histogram(block.same[block.in_class])
        return Histograms(*counts)

    def count_matches(self, thresholds: Sequence[float]) -> ClassCounts:
        """Count the comparisons that reach each of the rising thresholds, by class."""
        found: list[tuple[Tensor, ...]] = []
        for block in self._blocks():
            in_class = _reaching(block.same.masked_fill(~block.in_class, -torch.inf), thresholds)
            positives = _reaching(block.same.masked_fill(~block.counted, -torch.inf), thresholds)
            negatives = _reaching(block.similarities, thresholds) - in_class
            others = block.similarities.shape[1] - block.in_class.sum(1)
            found.append((block.counted.sum(1).cpu(), others.cpu(), positives, negatives))
        labels = self.task.of_queries(self.task.labels).cpu()
        return ClassCounts(
            *(_summed(torch.cat(parts), labels) for parts in zip(*found, strict=True))
        )

    def _blocks(self) -> Iterator[_Block]:
        """Yield all similarities; the next block overwrites them."""
        parts, device = self._parts(), self.device or self.members[0].device
        task = self.task.to(device)
        like = torch.empty(task.gallery_size, 0, dtype=parts[0].gallery.dtype, device=device)
        block, classes, own = new_block(like), task.classes(), task.own_columns()
        for numbers in torch.arange(task.query_count, device=device).split(len(block)):
            similarities = block[: len(numbers)]
            for index, part in enumerate(parts):
                rows = part.queries[numbers[0] : numbers[-1] + 1].to(block)
                gallery, beta = part.gallery.to(block), float(index > 0)
                add_product(similarities, rows, gallery, beta=beta, weight=part.weight)
            columns, padding = classes.columns(numbers)
            counted = ~padding & (columns != own[numbers, None])
            if task.groups is not None:
                groups = task.of_gallery(task.groups)[columns]
                counted &= groups != task.of_queries(task.groups)[numbers, None]
            yield _Block(numbers, similarities, similarities.gather(1, columns), ~padding, counted)

    def _parts(self) -> list[Part]:
        """Queries and gallery of each member; the weights add up to 1."""
        weights = self.weights or [1.0] * len(self.members)
        parts = []
        for rows, weight in zip(self.members, weights, strict=True):
            check_shapes("verification", rows, self.task.labels)
            check_finite("verification", rows)
            rows, share = as_float(rows), weight / sum(weights)
            parts.append(Part(self.task.of_queries(rows), self.task.of_gallery(rows), share))
        return parts


def _summed(rows: Tensor, labels: Tensor) -> Tensor:
    """Sums (C, ...) of rows (Q, ...) over equal labels (Q,)."""
    classes, numbers = labels.unique(return_inverse=True)
    return rows.new_zeros(len(classes), *rows.shape[1:]).index_add_(0, numbers, rows)


def _histogram(cosines: Tensor) -> Tensor:
    """Numbers (BINS + 1,) of cosines of any shape in each bin.

    Scaling by a power of two and rounding down are exact, so that a cosine is at or above the edge
    of its bin as compared in floating point.
    """
    bins = cosines.mul(_PER_UNIT).floor_().add_(_PER_UNIT).clamp_(0, BINS)
    return bins.to(torch.int32).flatten().bincount(minlength=BINS + 1).cpu()


def _reaching(similarities: Tensor, thresholds: Sequence[float]) -> Tensor:
    """How many of each row (B, N) are at or above each of the rising thresholds: (B, T)."""
    count, levels = len(similarities), len(thresholds) + 1
    rows = torch.arange(count, device=similarities.device)
    limits = torch.tensor(thresholds, dtype=similarities.dtype, device=similarities.device)
    low, high = limits[:1].expand(count), torch.full_like(rows, 2, dtype=similarities.dtype)
    row, column = within(similarities, rows, low.contiguous(), high)
    level = torch.bucketize(similarities[row, column], limits, right=True)
    counts = (row * levels + level).bincount(minlength=count * levels).view(count, levels)
    return counts.flip(1).cumsum(1).flip(1)[:, 1:].cpu()
