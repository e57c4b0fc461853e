"""Cosines that stay exact under autocast; most losses are built on them."""

import torch
from torch import Tensor
from torch.nn import functional as F


def at_least_float32(tensor: Tensor) -> Tensor:
    """Convert to float32, unless the precision is already higher."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def unit_rows(vectors: Tensor) -> Tensor:
    """Normalise rows (B, D) to length 1; rows of zeros stay."""
    return F.normalize(at_least_float32(vectors))


def pairwise_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines of rows (B, D) with columns (C, D): (B, C)."""
    with torch.autocast(rows.device.type, enabled=False):
        return unit_rows(rows) @ unit_rows(columns).T
