"""Exact nearest neighbours in blocks; the N x N matrix never exists.

Letters: Q queries, N gallery items, B rows of a block, D embedding width, K neighbours.
Similarity is the dot product. Of equal similarities, as computed, the lower index comes first.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dmlray.evaluation.input_checks import check_depths
from dmlray.evaluation.matmul import add_product

ROWS = 512  # fills a CPU's product kernel; the block stays near the cache
SYMMETRIC = 12 * ROWS  # of a matrix so small half is computed, and a quarter held: 36 MiB
MOST_ROWS_ON_GPU = 4096
RARE_ROWS, RARE_ROWS_ON_GPU = 8, 256  # copied for a second look: 8 stay in a CPU's cache
FEW_ROWS = 16  # copied to be compared: they stay in a core's cache
PARTED_ROWS = 64  # copied to be partitioned: they stay in a core's cache
GROUPS = 6  # groups of columns, at least, for each value that is looked for
RUN = 64  # columns that stand or fall together when few are looked for among many


class Neighbours(NamedTuple):
    """similarities (Q, K), best first, and the gallery indices (Q, K) they belong to."""

    similarities: Tensor
    indices: Tensor


def nearest(queries: Tensor, k: int, gallery: Tensor | None = None) -> Neighbours:
    """The k nearest of gallery (N, D), or of the other queries, to each of queries (Q, D)."""
    reference = queries if gallery is None else gallery
    check_depths("k", [k], len(reference) - (gallery is None))
    hide = hide_self if gallery is None else None
    found = [top(block, k) for _, block in tiles(queries, reference, hide)]
    return Neighbours(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def tiles(
    queries: Tensor,
    gallery: Tensor,
    hide: Callable[[Tensor, Tensor], None] | None,
    rounded: bool = False,
    near_ties: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield query numbers (B,) and their similarities (B, N), which the next step overwrites.

    `hide(similarities, numbers)` puts what does not count at -inf. `rounded` allows products of
    less than float32, see `matmul.add_product`. `near_ties`: similarities to equal items may
    differ by rounding, so that half of them can be taken from earlier rows.
    """
    block = new_block(gallery)
    small = block.device.type == "cpu" and len(gallery) <= SYMMETRIC
    symmetric = near_ties and queries is gallery and small
    kept = dict[int, list[Tensor]]()
    for numbers in torch.arange(len(queries), device=block.device).split(len(block)):
        similarities = block[: len(numbers)]
        if symmetric:
            _add_symmetric(similarities, int(numbers[0]), gallery, kept, rounded)
        else:
            rows = queries[numbers[0] : numbers[-1] + 1]
            add_product(similarities, rows, gallery, rounded=rounded)
        if hide:
            hide(similarities, numbers)
        yield numbers, similarities


def _add_symmetric(
    block: Tensor, first: int, embeddings: Tensor, kept: dict[int, list[Tensor]], rounded: bool
) -> None:
    """Fill a block (B, N) of the similarities of all pairs, rows `first` to `first` + B.

    Columns left of the diagonal were computed by earlier rows, which left them in `kept`.
    """
    end = first + len(block)
    add_product(block[:, first:], embeddings[first:end], embeddings[first:], rounded=rounded)
    for column, tile in zip(range(0, first, ROWS), kept.pop(first, []), strict=True):
        block[:, column : column + ROWS] = tile
    for row in range(end, len(embeddings), ROWS):
        tile = block[:, row : row + ROWS].T
        kept.setdefault(row, []).append(tile.clone(memory_format=torch.contiguous_format))


def new_block(like: Tensor) -> Tensor:
    """An unset similarity block (B, N) for like (N, D), with B rows as the memory allows."""
    on_gpu = like.device.type == "cuda"
    rows = rows_within(free_memory(like.device), like) if on_gpu else ROWS
    return torch.empty(min(rows, len(like)), len(like), dtype=like.dtype, device=like.device)


def rows_within(free: int, like: Tensor) -> int:
    """Rows of a block for like (N, D) on a GPU with so many bytes free."""
    per_row = 16 * len(like) * like.element_size()  # top-k needs several times the block
    return max(1, min(MOST_ROWS_ON_GPU, free // per_row))


def free_memory(device: torch.device) -> int:
    """Bytes of a GPU for new tensors: also what torch keeps of old ones, a training's above all."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def hide_self(similarities: Tensor, numbers: Tensor) -> None:
    """Set self-similarity to -inf in place, by index since duplicates may tie."""
    similarities[torch.arange(len(numbers), device=numbers.device), numbers] = -torch.inf


def top(similarities: Tensor, k: int) -> Neighbours:
    """The k largest of each row of (B, N); among equals the lower column comes first.

    `topk` finds the right values but any of equal columns. One value more than asked for shows
    where that matters: rows whose cut falls between equals pick the lowest columns anew, and rows
    with equals inside are put in order; all others, nearly all in practice, are left alone.
    """
    values, columns = _largest(similarities, min(k + 1, similarities.shape[1]))
    cut = (values[:, k:] == values[:, k - 1 : k]).any(1)
    values, columns = values[:, :k], columns[:, :k]
    for rows in few(cut.nonzero().squeeze(1)):
        columns[rows] = _lowest_at_the_cut(similarities[rows], values[rows], columns[rows])
    rows = (values[:, 1:] == values[:, :-1]).any(1).nonzero().squeeze(1)
    columns[rows] = _lower_first(values[rows], columns[rows])
    return Neighbours(values, columns)


def highest(similarities: Tensor, k: int) -> Tensor:
    """The k largest values of each row of (B, N), rising: (B, k). Without columns it is quicker."""
    if similarities.device.type != "cpu":
        return _largest(similarities, k).similarities.flip(1)
    values = torch.empty(len(similarities), k, dtype=similarities.dtype)
    for rows, found in zip(similarities.split(PARTED_ROWS), values.split(PARTED_ROWS), strict=True):
        candidates = _candidates(rows.numpy(), k)
        parted = np.partition(candidates, -k, axis=1)[:, -k:]
        found.copy_(torch.from_numpy(np.sort(parted, axis=1)))
    return values


def _candidates(rows: np.ndarray, k: int) -> np.ndarray:
    """Few values of each row (B, N) with its k largest among them, padded with -inf: (B, C).

    Of columns in groups, the k-th largest of their maxima is a bound that k values reach. Halves
    are compared with halves, which takes long runs of columns at once.
    """
    count, columns = rows.shape
    maxima = rows
    while (groups := maxima.shape[1] // 2) >= GROUPS * k:
        maxima = np.maximum(maxima[:, :groups], maxima[:, groups : 2 * groups])
    if maxima is rows:
        return rows
    bound = np.partition(maxima, -k, axis=1)[:, -k]
    row, column = np.divmod(np.flatnonzero(rows >= bound[:, None]), columns)
    found = np.bincount(row, minlength=count)
    place = np.arange(len(row)) - (np.cumsum(found) - found)[row]
    candidates = np.full((count, found.max()), -np.inf, dtype=rows.dtype)
    candidates[row, place] = rows[row, column]
    return candidates


def few(rows: Tensor) -> Sequence[Tensor]:
    """The row numbers (B,), as many at a time as one should copy."""
    on_cpu = rows.device.type == "cpu"
    parts: Sequence[Tensor] = rows.split(RARE_ROWS if on_cpu else RARE_ROWS_ON_GPU)
    return parts


def within(block: Tensor, rows: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Find the columns of the rows (W,) of a block (B, N) with values from `low` to `high` (W,).

    Returns:
        (C,) each: the position in `rows` and the column, in rising order.
    """
    if block.device.type != "cpu":
        values = block[rows]
        inside = (values >= low[:, None]) & (values <= high[:, None])
        row, column = inside.nonzero(as_tuple=True)
        return row, column
    found = [np.zeros(0, dtype=np.int64)]
    numbers, chosen, least, most = (tensor.numpy() for tensor in (block, rows, low, high))
    for start in range(0, len(rows), FEW_ROWS):  # as torch, in a tenth of its time
        part = slice(start, start + FEW_ROWS)
        copied = numbers[chosen[part]]
        above = np.flatnonzero(copied >= least[part, None])  # few, of which the rest is asked
        fits = copied.ravel()[above] <= most[part][above // block.shape[1]]
        found.append(above[fits] + start * block.shape[1])
    places = np.divmod(np.concatenate(found), block.shape[1])
    return torch.from_numpy(places[0]), torch.from_numpy(places[1])


def _largest(similarities: Tensor, k: int) -> Neighbours:
    """As `topk`. Among many columns, only the k runs with the largest maxima can hold them."""
    if not _in_few_runs(similarities, k):
        return Neighbours(*similarities.topk(k))
    runs = similarities.shape[1] // RUN
    whole = runs * RUN
    maxima = similarities[:, :whole].unflatten(1, (runs, RUN)).amax(2)
    chosen = maxima.topk(k, sorted=False).indices[..., None] * RUN
    every = torch.arange(similarities.shape[1], device=similarities.device)
    rest = every[whole:].expand(len(similarities), -1)
    candidates = torch.cat([(chosen + every[:RUN]).flatten(1), rest], 1)
    values, at = similarities.gather(1, candidates).topk(k)
    return Neighbours(values, candidates.gather(1, at))


def _in_few_runs(similarities: Tensor, k: int) -> bool:
    """Whether so few of the runs are needed that it is worth a look at all of them first."""
    return similarities.shape[1] // RUN >= 8 * k


def _lowest_at_the_cut(similarities: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """Replace the columns that hold the last value by the lowest columns of that value."""
    last = values[:, -1:]
    at_last = values == last  # (B, K)
    equals = similarities == last  # (B, N)
    lowest = equals & (equals.cumsum(1) <= at_last.sum(1, keepdim=True))
    return columns.masked_scatter(at_last, lowest.nonzero()[:, 1])  # both go row by row


def _lower_first(values: Tensor, columns: Tensor) -> Tensor:
    """Order columns (B, K) by value, falling, then by column, rising."""
    by_column, order = columns.sort(1)
    by_value = values.gather(1, order).argsort(dim=1, descending=True, stable=True)
    return by_column.gather(1, by_value)
