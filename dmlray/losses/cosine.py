"""Cosines that stay exact under autocast, because every loss here is built on them."""

import torch
from torch import Tensor
from torch.nn import functional as F


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or as it is where that is finer."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def unit_rows(vectors: Tensor) -> Tensor:
    """Rows (B, D) brought to length 1; a row of zeros stays."""
    return F.normalize(at_least_float32(vectors))


def pairwise_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """Cosines of rows (B, D) with columns (C, D): (B, C)."""
    with torch.autocast(rows.device.type, enabled=False):
        return unit_rows(rows) @ unit_rows(columns).T
