"""From a block of similarities to hits, ranks and sums of metrics.

Letters: Q queries, N gallery items, B rows of a block, R other items of a query's class,
C items of several queries whose order is decided together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dmlray.evaluation.neighbours import few, highest, within
from dmlray.evaluation.products import Similarity

PAIRS = 4_000_000  # of a window and an item that are looked at together
MANY = 400_000  # of these, in whose place one product of matrices is quicker


class Classes(NamedTuple):
    """Which gallery items are of the class of which query.

    Query q's class is members[start[q] : start[q] + size[q]], gallery indices in rising order.
    """

    queries: Tensor  # (Q,) labels
    gallery: Tensor  # (N,) labels
    members: Tensor  # (N,)
    start: Tensor  # (Q,)
    size: Tensor  # (Q,)


class Windows(NamedTuple):
    """Runs of items whose computed similarities are too near to tell their order, (W,) each.

    Items of row `rows` between `low` and `high` take its places from `begin` on.
    """

    rows: Tensor
    low: Tensor
    high: Tensor
    begin: Tensor


def classes_of(queries: Tensor, gallery: Tensor) -> Classes:
    """Index gallery labels (N,) for queries of labels (Q,)."""
    ordered, members = gallery.sort(stable=True)
    start = torch.searchsorted(ordered, queries)
    size = torch.searchsorted(ordered, queries, right=True) - start
    return Classes(queries, gallery, members, start, size)


def first_hits(
    similarities: Tensor, classes: Classes, numbers: Tensor, similarity: Similarity
) -> Tensor:
    """Rank of the nearest item of each query's own class, 0 is the nearest of all: (B,).

    Rows are similarities (B, N) of the queries numbers (B,), the query itself at -inf. Counting
    what lies before the best own item needs no sorting, however deep it is. Without an own item
    everything else lies before.
    """
    every = torch.arange(len(numbers), device=numbers.device)
    ranks = [
        _first_hits(similarities[rows], classes, numbers[rows], similarity) for rows in few(every)
    ]
    return torch.cat(ranks)


def _first_hits(
    similarities: Tensor, classes: Classes, numbers: Tensor, similarity: Similarity
) -> Tensor:
    _, values = _own(similarities, classes, numbers)
    best, margin = values.amax(1, keepdim=True), _margin(similarity, numbers, similarities)
    low, high = best - margin, best + margin
    nearer = (similarities > high).sum(1)
    near = (similarities >= low).sum(1) - nearer
    mixed = (near > (values >= low).sum(1)) & best.isfinite().squeeze(1)  # other classes' too
    rows = mixed.nonzero().squeeze(1)
    windows = Windows(rows, low[rows, 0], high[rows, 0], nearer[rows])
    window, own, place = in_order(windows, similarities, classes, numbers, similarity)
    beyond = torch.full_like(rows, similarities.shape[1])
    nearer[rows] = beyond.scatter_reduce_(0, window[own], place[own], "amin")
    return nearer


def in_order(
    windows: Windows, block: Tensor, classes: Classes, numbers: Tensor, similarity: Similarity
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the items of each window in the order of their exact similarities.

    Args:
        block: Similarities (B, N) as they were computed, of queries numbers (B,).

    Returns:
        (C,) each: the window, whether the item is of the query's class, and its place in its
        row. Of equal similarities the lower index comes first.
    """
    found = [torch.empty(3, 0, dtype=torch.float64, device=block.device)]
    at_once = max(1, PAIRS // block.shape[1])  # windows, which may hold all items of their rows
    for chosen in torch.arange(len(windows.rows), device=block.device).split(at_once):
        rows = windows.rows[chosen]
        row, item = within(block, rows, windows.low[chosen], windows.high[chosen])
        if len(row) > MANY:
            values = similarity.nearly_exact(numbers[rows])[row, item]
        else:
            values = similarity.exact(numbers[rows[row]], item)
        found.append(torch.stack([chosen[row].double(), item.double(), values]))
    window, item, values = torch.cat(found, 1)
    window, item = window.long(), item.long()
    falling = values.argsort(descending=True, stable=True)
    order = falling[window[falling].argsort(stable=True)]
    window, item = window[order], item[order]
    own = classes.gallery[item] == classes.queries[numbers[windows.rows[window]]]
    counts = window.bincount(minlength=len(windows.rows))
    begins = windows.begin - (counts.cumsum(0) - counts)
    return window, own, torch.arange(len(window), device=block.device) + begins[window]


def _margin(similarity: Similarity, numbers: Tensor, like: Tensor) -> Tensor:
    """Difference (B, 1) up to which computed similarities of a query decide nothing."""
    return (2 * similarity.error[numbers, None]).to(like)


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
        deepest = max((k for k in self.recall_at if k <= self.most), default=1)
        self.depth = self.others.clamp(min=deepest)  # (N,) places whose hits count
        self.queries = int((self.others > 0).sum())

    def sums(self, similarities: Tensor, numbers: Tensor, similarity: Similarity) -> Tensor:
        """Metrics summed over the queries numbers (B,) that have another of their class: (M,).

        Args:
            similarities: (B, N), as they were computed, each query itself at -inf.
            similarity: What they are, which decides where they are too near.
        """
        hits, first = self._ranked(similarities, numbers, similarity)
        counted = self.others[numbers] > 0
        hits, first, others = hits[counted], first[counted], self.others[numbers[counted], None]
        return torch.stack(
            [(first < k).sum().double() for k in self.recall_at] + _precisions(hits, others)
        )

    def means(self, sums: Tensor) -> dict[str, float]:
        """Name the metrics (M,) and divide by the number of queries that count."""
        names = [*map("recall_at_{}".format, self.recall_at), "r_precision", "map_at_r"]
        return dict(zip(names, (sums / self.queries).tolist(), strict=True))

    def _ranked(
        self, similarities: Tensor, numbers: Tensor, similarity: Similarity
    ) -> tuple[Tensor, Tensor]:
        """Whether each of the nearest is a hit (B, most), and the rank of the first hit (B,)."""
        hits = self._hits(similarities, numbers, similarity)
        first = hits.int().argmax(1)
        missed = (~hits.any(1)).nonzero().squeeze(1)
        first[missed] = similarities.shape[1]
        if len(missed) and max(self.recall_at, default=0) > self.most:
            for rows in few(missed):
                first[rows] = _first_hits(
                    similarities[rows], self.classes, numbers[rows], similarity
                )
        return hits, first

    def _hits(self, similarities: Tensor, numbers: Tensor, similarity: Similarity) -> Tensor:
        """Whether each of the `depth` nearest is of the query's class: (B, most).

        Ranks of the items of the own class need no columns, but where one of another is as near.
        """
        best = highest(similarities, self.most + 1)  # (B, most + 1), rising; N at most
        _, own = _own(similarities, self.classes, numbers)
        ranks = self.most - torch.searchsorted(best[:, 1:].contiguous(), own, right=True)
        hits = torch.zeros_like(best, dtype=torch.bool).scatter_(1, ranks, True)[:, :-1]
        counted = torch.arange(self.most, device=best.device) < self.depth[numbers, None]
        windows = _mixed(best, hits, counted, _margin(similarity, numbers, similarities))
        window, own, place = in_order(windows, similarities, self.classes, numbers, similarity)
        inside = place < self.most
        hits[windows.rows[window[inside]], place[inside]] = own[inside]
        return hits & counted


def _mixed(best: Tensor, hits: Tensor, counted: Tensor, margin: Tensor) -> Windows:
    """Find the runs of near values that hold hits and others, at places that count.

    Args:
        best: Values (B, M + 1) of the nearest items, rising.
        hits: Which of the first M places are hits as computed, in falling order.
        counted: Which of them count (B, M).
        margin: (B, 1) up to which two values decide nothing.
    """
    falling = best.flip(1)
    near = falling[:, :-1] - falling[:, 1:] <= margin  # to the next one (B, M)
    unlike = torch.ones_like(hits)  # what follows the last place may be of either kind
    unlike[:, :-1] = hits[:, 1:] != hits[:, :-1]
    mixed = near & unlike & counted
    rows = mixed.any(1).nonzero().squeeze(1)
    every, most = torch.arange(hits.shape[1], device=rows.device), hits.shape[1]
    breaks = ~near[rows]
    before = torch.where(breaks, every, -1).cummax(1).values
    after = torch.where(breaks, every, most).flip(1).cummin(1).values.flip(1)
    row, place = mixed[rows].nonzero(as_tuple=True)
    begin, end, row = before[row, place] + 1, after[row, place], rows[row]
    run = row * most + begin
    new = torch.cat([run.new_ones(1).bool()[: len(run)], run[1:] != run[:-1]])
    row, begin, end = row[new], begin[new], end[new]
    last = falling[row, end]
    # Beyond the last place others may be as near: all of them are looked at.
    low = torch.where(end == most, last - margin[row, 0], last)
    return Windows(row, low, falling[row, begin], begin)


def _precisions(hits: Tensor, others: Tensor) -> list[Tensor]:
    """Sums of RP and MAP@R over hits (B, most) of queries with others (B, 1) = R each."""
    place = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    relevant = (hits & (place <= others)).double()
    precision = relevant.cumsum(1) / place
    return [(relevant / others).sum(), (relevant * precision / others).sum()]
