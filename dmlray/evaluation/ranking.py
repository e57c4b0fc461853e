"""From a block of similarities to hits, ranks and sums of metrics.

Letters: Q queries, G gallery items, B rows of a block, R other items of a query's class that count,
C items of several queries whose order is decided together.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dmlray.evaluation.input_checks import check_counted
from dmlray.evaluation.metrics import Ranked, retrieval_metrics
from dmlray.evaluation.neighbours import few, highest, within
from dmlray.evaluation.products import Similarity
from dmlray.evaluation.task import Classes, RetrievalTask

PAIRS = 4_000_000  # of a window and an item that are looked at together
SHALLOW = 32  # places, which to look at costs less than to search for a first hit beyond
MANY = 400_000  # of these, in whose place one product of matrices is quicker


class Windows(NamedTuple):
    """Runs of items whose computed similarities are too close to order, (W,) each.

    Items of row `rows` between `low` and `high` take its places from `begin` on.
    """

    rows: Tensor
    low: Tensor
    high: Tensor
    begin: Tensor


def first_hits(
    similarities: Tensor,
    classes: Classes,
    numbers: Tensor,
    similarity: Similarity,
    rows: Tensor,
) -> Tensor:
    """Rank of the nearest item of each query's own class, 0 is the nearest of all, for `rows`.

    Similarities (B, G) are of the queries numbers (B,), hidden items at -inf. Counting what lies
    before the best own item needs no sorting, however deep it is. Without an own item everything
    else lies before.
    """
    ranks = [
        _first_hits(similarities[part], classes, numbers[part], similarity) for part in few(rows)
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
        windows: Items whose order is to be decided.
        block: Similarities (B, G) as they were computed, of queries numbers (B,).
        classes: Classes of queries and gallery.
        numbers: Numbers (B,) of the queries.
        similarity: Computes exact similarities.

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
    own, beyond = classes.columns(numbers)
    return own, similarities.gather(1, own).masked_fill(beyond, -torch.inf)


class Ranking:
    """Ranks the gallery of a task for blocks of its queries and sums metrics over them.

    Queries without another item of their class in the gallery do not count.

    Source: Musgrave et al., A Metric Learning Reality Check, ECCV 2020, arXiv 2003.08505.
    """

    def __init__(self, where: str, task: RetrievalTask, names: Sequence[str]) -> None:
        """Index the task.

        Raises:
            DataError: If no query counts.
            ConfigError: If a name is no retrieval metric, or its K exceeds the gallery.
        """
        self.classes, self._mates = task.classes(), task.group_mates()
        self._itself = task.own_columns()
        hidden = (self._itself >= 0).long() if self._mates is None else self._mates.size
        self.others = self.classes.size - hidden  # (Q,) R of each query
        self.queries = int((self.others > 0).sum())
        check_counted(where, task, self.queries)
        self.names, self._metrics = tuple(names), retrieval_metrics(names, task.neighbours)
        self.most = int(self.others.max())
        firsts = [k or task.gallery_size for metric, k in self._metrics if metric.needs == "first"]
        nearest = [k for metric, k in self._metrics if metric.needs == "nearest"]
        shallow = [k for k in firsts if k <= SHALLOW]
        self.width = max(self.most, *nearest, *shallow, 0)  # places that are looked at
        self._deepest = max(firsts, default=0)
        within = max((k for k in (*firsts, *nearest) if k <= self.width), default=1)
        self.depth = self.others.clamp(min=within)  # (Q,) places whose hits count

    def hide(self, similarities: Tensor, numbers: Tensor) -> None:
        """Put what queries numbers (B,) are not searched for in at -inf, by its index."""
        if self._mates is not None:
            columns, beyond = self._mates.columns(numbers)
            rows, place = (~beyond).nonzero(as_tuple=True)
            similarities[rows, columns[rows, place]] = -torch.inf
            return
        columns = self._itself[numbers]
        rows = (columns >= 0).nonzero().squeeze(1)
        similarities[rows, columns[rows]] = -torch.inf

    def sums(self, similarities: Tensor, numbers: Tensor, similarity: Similarity) -> Tensor:
        """Metrics summed over those of the queries numbers (B,) that count: (M,).

        Args:
            similarities: (B, G), as they were computed, after `hide`.
            numbers: Numbers (B,) of the queries.
            similarity: What they are, which decides where they are too near.
        """
        ranked, _ = self._counted(similarities, numbers, similarity)
        return torch.stack(
            [metric.compute(ranked, k).double().sum() for metric, k in self._metrics]
        )

    def values(self, similarities: Tensor, numbers: Tensor, similarity: Similarity) -> Tensor:
        """Metrics of each of the queries numbers (B,): (M, B), NaN where a query does not count.

        Args: as of `sums`.
        """
        ranked, counted = self._counted(similarities, numbers, similarity)
        values = torch.full((len(self._metrics), len(numbers)), torch.nan, dtype=torch.float64)
        values = values.to(similarities.device)
        for row, (metric, k) in zip(values, self._metrics, strict=True):
            terms = metric.compute(ranked, k).double()
            row[counted] = terms if terms.ndim == 1 else terms.flatten(1).sum(1)
        return values

    def _counted(
        self, similarities: Tensor, numbers: Tensor, similarity: Similarity
    ) -> tuple[Ranked, Tensor]:
        """Rank for the queries that count, and which of numbers (B,) they are."""
        hits, first = self._ranked(similarities, numbers, similarity)
        counted = self.others[numbers] > 0
        relevant = self.others[numbers[counted], None]
        return Ranked(hits[counted], first[counted], relevant, self.most), counted

    def means(self, sums: Tensor) -> dict[str, float]:
        """Name the metrics (M,) and divide by the number of queries that count."""
        return dict(zip(self.names, (sums / self.queries).tolist(), strict=True))

    def _ranked(
        self, similarities: Tensor, numbers: Tensor, similarity: Similarity
    ) -> tuple[Tensor, Tensor]:
        """Whether each of the nearest is a hit (B, width), and the rank of the first hit (B,)."""
        hits = self._hits(similarities, numbers, similarity)
        first = hits.int().argmax(1)
        missed = ~hits.any(1)
        first[missed] = similarities.shape[1]
        missed = (missed & (self.others[numbers] > 0)).nonzero().squeeze(1)
        if len(missed) and self._deepest > self.width:
            first[missed] = first_hits(similarities, self.classes, numbers, similarity, missed)
        return hits, first

    def _hits(self, similarities: Tensor, numbers: Tensor, similarity: Similarity) -> Tensor:
        """Whether each of the `depth` nearest is of the query's class: (B, width).

        Ranks of the items of the own class need no columns, but where one of another is as near.
        """
        best = self._best(similarities)  # (B, width + 1), rising
        _, own = _own(similarities, self.classes, numbers)
        ranks = self.width - torch.searchsorted(best[:, 1:].contiguous(), own, right=True)
        if self._mates is not None:  # several hidden items may be in `best`, where nothing ranks
            ranks.masked_fill_(own == -torch.inf, self.width)
        hits = torch.zeros_like(best, dtype=torch.bool).scatter_(1, ranks, True)[:, :-1]
        counted = torch.arange(self.width, device=best.device) < self.depth[numbers, None]
        windows = _mixed(best, hits, counted, _margin(similarity, numbers, similarities))
        window, own, place = in_order(windows, similarities, self.classes, numbers, similarity)
        inside = place < self.width
        hits[windows.rows[window[inside]], place[inside]] = own[inside]
        return hits & counted

    def _best(self, similarities: Tensor) -> Tensor:
        """The largest similarities of each row, rising: (B, width + 1), -inf below the least."""
        columns = similarities.shape[1]
        if self.width < columns:
            return highest(similarities, self.width + 1)
        return F.pad(highest(similarities, columns), (1, 0), value=-torch.inf)


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
