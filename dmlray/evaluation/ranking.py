"""From a block of similarities to hits, ranks and sums of metrics.

Letters: Q queries, N gallery items, B rows of a block, R other items of a query's class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dmlray.evaluation.neighbours import few, highest, top


class Classes(NamedTuple):
    """Which gallery items are of the class of which query.

    Query q's class is members[start[q] : start[q] + size[q]], gallery indices in rising order.
    """

    queries: Tensor  # (Q,) labels
    gallery: Tensor  # (N,) labels
    members: Tensor  # (N,)
    start: Tensor  # (Q,)
    size: Tensor  # (Q,)


def classes_of(queries: Tensor, gallery: Tensor) -> Classes:
    """Index gallery labels (N,) for queries of labels (Q,)."""
    ordered, members = gallery.sort(stable=True)
    start = torch.searchsorted(ordered, queries)
    size = torch.searchsorted(ordered, queries, right=True) - start
    return Classes(queries, gallery, members, start, size)


def first_hits(similarities: Tensor, classes: Classes, numbers: Tensor) -> Tensor:
    """Rank of the nearest item of each query's own class, 0 is the nearest of all: (B,).

    Rows are similarities (B, N) of the queries numbers (B,), the query itself at -inf. Counting
    what lies before the best own item needs no sorting, however deep it is. Without an own item
    everything else lies before.
    """
    parts = few(torch.arange(len(numbers), device=numbers.device))
    ranks = [_first_hits(similarities[rows], classes, numbers[rows]) for rows in parts]
    return torch.cat(ranks)


def _first_hits(similarities: Tensor, classes: Classes, numbers: Tensor) -> Tensor:
    own, values = _own(similarities, classes, numbers)
    every = torch.arange(similarities.shape[1], device=similarities.device)  # (N,)
    best, at = values.max(1)
    nearer = (similarities > best[:, None]).sum(1, dtype=torch.int32)
    as_near = (similarities >= best[:, None]).sum(1, dtype=torch.int32) - nearer
    for rows in few((as_near > 1).nonzero().squeeze(1)):
        before = every < own[rows].gather(1, at[rows, None])
        equal_before = before & (similarities[rows] == best[rows, None])
        nearer[rows] += equal_before.sum(1, dtype=torch.int32)
    return nearer.long()


def _own(similarities: Tensor, classes: Classes, numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of each query's own class and what stands there, -inf where a class is smaller."""
    size = classes.size[numbers, None]  # (B, 1)
    within = torch.arange(int(size.max()), device=similarities.device)  # (largest class,)
    place = (classes.start[numbers, None] + within).clamp(max=len(classes.members) - 1)
    own = classes.members[place]  # (B, largest class)
    return own, similarities.gather(1, own).masked_fill(within >= size, -torch.inf)


class SelfRetrieval:
    """Sums R@K, RP and MAP@R where every image is a query and all others are its gallery.

    Source: Musgrave et al., A Metric Learning Reality Check, ECCV 2020, arXiv 2003.08505.
    """

    def __init__(self, labels: Tensor, recall_at: Sequence[int]) -> None:
        self.classes = classes_of(labels, labels)
        self.recall_at = tuple(recall_at)
        self.others = self.classes.size - 1  # (N,) R of each query
        self.most = int(self.others.max())
        self.queries = int((self.others > 0).sum())

    def sums(self, similarities: Tensor, numbers: Tensor) -> Tensor:
        """Metrics summed over the queries numbers (B,) that have another of their class: (M,)."""
        hits, first = self._ranked(similarities, numbers)
        counted = self.others[numbers] > 0
        hits, first, others = hits[counted], first[counted], self.others[numbers[counted], None]
        return torch.stack(
            [(first < k).sum().double() for k in self.recall_at] + _precisions(hits, others)
        )

    def means(self, sums: Tensor) -> dict[str, float]:
        """Name the metrics (M,) and divide by the number of queries that count."""
        names = [*map("recall_at_{}".format, self.recall_at), "r_precision", "map_at_r"]
        return dict(zip(names, (sums / self.queries).tolist(), strict=True))

    def _ranked(self, similarities: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Whether each of the nearest is a hit (B, most), and the rank of the first hit (B,)."""
        hits = self._hits(similarities, numbers)
        first = hits.int().argmax(1)
        missed = (~hits.any(1)).nonzero().squeeze(1)
        first[missed] = similarities.shape[1]
        if len(missed) and max(self.recall_at, default=0) > self.most:
            for rows in few(missed):
                first[rows] = _first_hits(similarities[rows], self.classes, numbers[rows])
        return hits, first

    def _hits(self, similarities: Tensor, numbers: Tensor) -> Tensor:
        """Ranks of the items of the own class need no columns, but where values are equal."""
        best = highest(similarities, self.most + 1)  # (B, most + 1), rising; N at most
        _, own = _own(similarities, self.classes, numbers)
        ranks = self.most - torch.searchsorted(best[:, 1:].contiguous(), own, right=True)
        hits = torch.zeros_like(best, dtype=torch.bool).scatter_(1, ranks, True)[:, :-1]
        for rows in few((best[:, 1:] == best[:, :-1]).any(1).nonzero().squeeze(1)):
            nearest = top(similarities[rows], self.most).indices
            hits[rows] = self.classes.gallery[nearest] == self.classes.queries[numbers[rows], None]
        return hits


def _precisions(hits: Tensor, others: Tensor) -> list[Tensor]:
    """Sums of RP and MAP@R over hits (B, most) of queries with others (B, 1) = R each."""
    place = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    relevant = (hits & (place <= others)).double()
    precision = relevant.cumsum(1) / place
    return [(relevant / others).sum(), (relevant * precision / others).sum()]
