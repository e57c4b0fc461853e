"""Similarities as they are, beside how they were computed: sums of dot products of embeddings.

A product of matrices rounds as its kernel adds up, so that two near values may come in either
order, by CPU, GPU and precision. Here is what decides: a bound of that rounding, and single dot
products whose value is the same everywhere.

Letters: Q queries, N gallery items, B rows of a block, D width of a part, P pairs.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PAIRS = 256  # whose products are held at once: they stay in a core's cache
_SIGMAS = 7.0  # a larger rounding error has a probability below 1e-10
_OTHERS = 4  # roundings: of the weight, of the sum's last step, and of comparing
_LONGER = 1.01  # a row rounded to bfloat16 may be longer by 2**-8
_GRAIN = 2.0**48


class Part(NamedTuple):
    """Embeddings queries (Q, D) and gallery (N, D), whose dot products count `weight` times."""

    queries: Tensor
    gallery: Tensor
    weight: float = 1.0


class Similarity(NamedTuple):
    """The weighted sum of the parts' dot products, and how far a computed one may be off.

    `error` (Q,) bounds the rounding of each computed similarity of a query, `size` every one.
    """

    parts: Sequence[Part]
    error: Tensor
    size: float

    def exact(self, queries: Tensor, items: Tensor) -> Tensor:
        """Similarities (P,) in float64 of pairs of a query and a gallery item, (P,) indices each.

        Products of float32 numbers are exact in float64, and they are added in one fixed order:
        equal embeddings give equal values on every machine.
        """
        pairs = zip(queries.split(PAIRS), items.split(PAIRS), strict=True)
        return torch.cat([self._exact(*pair) for pair in pairs])

    def nearly_exact(self, queries: Tensor) -> Tensor:
        """Similarities (B, N) of queries (B,) in float64, as products of matrices.

        For embeddings that have collapsed, of which nearly all pairs are near. Rounded to what
        the product's own rounding leaves, so that equal items stay equal.
        """
        first = self.parts[0].gallery
        total = torch.zeros(len(queries), len(first), dtype=torch.float64, device=queries.device)
        for rows, gallery, weight in self.parts:
            chosen = rows[queries.to(rows.device)].to(total)
            total.addmm_(chosen, gallery.to(total).T, alpha=weight)
        return total.mul_(_GRAIN).round_().div_(_GRAIN)

    def _exact(self, queries: Tensor, items: Tensor) -> Tensor:
        total = torch.zeros(len(queries), dtype=torch.float64, device=queries.device)
        for rows, gallery, weight in self.parts:
            dots = _dots(rows[queries.to(rows.device)], gallery[items.to(gallery.device)])
            total += weight * dots.to(total.device)
        return total


def similarity(part: Part, rounded: bool = False) -> Similarity:
    """Similarities of one part, computed in the precision it has.

    `rounded`: they are computed as `matmul.add_product` may round them.
    """
    found = _alone(part, part.queries.dtype)
    if not rounded:
        return found
    queries, gallery = _residuals(part.queries), _residuals(part.gallery)
    longest, worst = _lengths(part.gallery).amax(), gallery.amax()
    # Cauchy-Schwarz for the residual of either factor.
    rounding = queries * longest + _lengths(part.queries) * worst
    return found._replace(error=found.error + _LONGER * rounding)


def grown(before: Similarity | None, part: Part, dtype: torch.dtype) -> Similarity:
    """Add a part to similarities that are computed and kept in `dtype`."""
    new = _alone(part, dtype)
    if before is None:
        return new
    size = before.size + new.size
    error = before.error + new.error.to(before.error) + torch.finfo(dtype).eps * size
    return Similarity([*before.parts, part], error, size)


def _alone(part: Part, dtype: torch.dtype) -> Similarity:
    """Bound the rounding of one part, in whatever order its products add up.

    Source: Higham and Mary, A New Approach to Probabilistic Rounding Error Analysis, SIAM J. Sci.
    Comput. 2019, theorem 2.4; below 64 dimensions the bound that holds without probabilities.
    """
    lengths, longest = part.weight * _lengths(part.queries), float(_lengths(part.gallery).amax())
    width, unit = part.gallery.shape[1], torch.finfo(dtype).eps / 2
    terms = min(width, _SIGMAS * math.sqrt(width)) + _OTHERS
    error = terms * unit * longest * lengths + torch.finfo(torch.float32).tiny
    return Similarity([part], error, longest * float(lengths.amax()))


def _residuals(rows: Tensor) -> Tensor:
    """(B,) lengths of what rounding to bfloat16 takes from each row."""
    return _lengths(rows - rows.bfloat16().to(rows))


def _lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=_wide(rows))
    return lengths


def _wide(rows: Tensor) -> torch.dtype:
    return torch.float64 if rows.dtype == torch.float64 else torch.float32


def _dots(left: Tensor, right: Tensor) -> Tensor:
    """Dot products of rows (P, D) in float64, halves added to halves: plain operations only."""
    terms = left.double() * right
    while (width := terms.shape[1]) > 1:
        if width % 2:
            terms = F.pad(terms, (0, 1))
        terms = torch.add(*terms.chunk(2, dim=1))
    return terms[:, 0]
