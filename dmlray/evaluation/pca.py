"""Fewer dimensions for merged embeddings: PCA, with or without whitening.

Letters: N images, L members of widths D_1 ... D_L, S = their sum, P kept dimensions.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dmlray.errors import ConfigError

MOST_WIDTH = 8192  # S; the covariance has S x S float64 numbers
_ROWS = 2048
_NOTHING = 1e-10  # share of the largest variance; directions below it are rounding errors


@dataclass(frozen=True)
class Projection:
    """`mean` (S,) and `directions` (S, P) of the members side by side."""

    mean: Tensor
    directions: Tensor

    def __call__(self, members: Sequence[Tensor]) -> Tensor:
        """Unit rows (N, P) of members (N, D_l), in float32."""
        rows = [(part - self.mean) @ self.directions for part in _side_by_side(members)]
        return F.normalize(torch.cat(rows)).float()


def fit_projection(members: Sequence[Tensor], size: int | None, whiten: bool) -> Projection:
    """The `size` directions of largest variance of members (N, D_l); None keeps all that vary.

    Whitening gives each direction variance 1. Rows go by in blocks: no (N, S) is made.

    Raises:
        ConfigError: If there are not so many directions.
    """
    width = sum(member.shape[1] for member in members)
    check_size(width, size)
    mean, covariance = _moments(members, width)
    variances, directions = torch.linalg.eigh(covariance)
    variances, directions = variances.flip(0), directions.flip(1)
    vary = int((variances > _NOTHING * variances[0]).sum())
    if size is not None and not 1 <= size <= vary:
        problem = f"{size} is not allowed. Allowed: 1 to {vary}, the dimensions that vary"
        raise ConfigError("`pca`", [problem])
    kept = size or vary
    directions = directions[:, :kept]
    if whiten:
        directions = directions / variances[:kept].sqrt()
    return Projection(mean, directions)


def principal_rows(rows: Tensor) -> Tensor:
    """Rotate rows (N, D) so that their principal directions come first: (N, R), R <= min(N, D).

    Without centring: cosines stay what they are, and the first K columns keep them best of all
    (N, K). Directions that are rounding errors are left out.

    Raises:
        ConfigError: If both N and D are too large.
    """
    count, width = rows.shape
    check_size(min(count, width), None)
    exact = rows.double()
    if width <= count:
        squares, directions = torch.linalg.eigh(exact.T @ exact)
        kept = exact @ directions
    else:
        squares, directions = torch.linalg.eigh(exact @ exact.T)
        kept = directions * squares.clamp(min=0).sqrt()
    rotated: Tensor = kept[:, squares > _NOTHING * squares[-1]].flip(1).to(rows.dtype)
    return rotated


def check_size(width: int, size: int | None) -> None:
    """Check what can be known of a projection before there are rows of `width` numbers.

    Raises:
        ConfigError: If they are too many, or fewer than `size`.
    """
    if width > MOST_WIDTH:
        problem = f"{width} dimensions side by side are too many. Allowed: {MOST_WIDTH}"
        raise ConfigError("`pca`", [problem])
    if size is not None and size > width:
        raise ConfigError("`pca`", [f"{size} is not allowed. Allowed: 1 to {width}"])


def _moments(members: Sequence[Tensor], width: int) -> tuple[Tensor, Tensor]:
    """Mean (S,) and covariance (S, S)."""
    total = torch.zeros(width, dtype=torch.float64)
    squares = torch.zeros(width, width, dtype=torch.float64)
    for part in _side_by_side(members):
        total += part.sum(0)
        squares += part.T @ part
    mean = total / len(members[0])
    return mean, squares / len(members[0]) - mean[:, None] * mean


def _side_by_side(members: Sequence[Tensor]) -> Iterator[Tensor]:
    """Blocks (B, S) of rows, in float64."""
    for parts in zip(*(member.split(_ROWS) for member in members), strict=True):
        yield torch.cat([part.double() for part in parts], 1)
