"""Float32 products by the fastest kernel that is exact here, or that rounds where it may."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

MOST_ERROR = 1e-5  # cosine; true bfloat16 is off by 1e-3, every float32 kernel by 1e-6


def add_product(
    block: Tensor,
    rows: Tensor,
    gallery: Tensor,
    *,
    beta: float = 0.0,
    weight: float = 1.0,
    rounded: bool = False,
) -> Tensor:
    """In place, block (B, N) = beta * block + weight * rows (B, D) @ gallery (N, D).T.

    `rounded` allows a kernel that rounds rows and gallery to bfloat16 and adds up in float32.
    """
    fast = block.device.type == "cpu" and (rounded or onednn_is_exact())
    with _precision(block.device.type, "bf16" if fast else "ieee"):
        return block.addmm_(rows, gallery.T, beta=beta, alpha=weight)


def may_round(rows: Tensor) -> bool:
    """Whether a kernel that rounds float32 rows is there, and so is several times as fast."""
    return rows.device.type == "cpu" and rows.dtype == torch.float32 and not onednn_is_exact()


@functools.cache
def onednn_is_exact() -> bool:
    """Whether allowing bfloat16 on this CPU changes the kernel but not the numbers.

    The permission sends float32 products to oneDNN, which is two to three times as fast as MKL on
    some CPUs and keeps float32 there; where it really would round to bfloat16 we do without.
    """
    generator = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(512, 256, generator=generator))
    block = torch.empty(len(rows), len(rows))
    with _precision("cpu", "bf16"):
        block.addmm_(rows, rows.T, beta=0)
    exact = rows.double() @ rows.double().T
    return bool((block - exact).abs().max() < MOST_ERROR)


@contextmanager
def _precision(device: str, setting: str) -> Iterator[None]:
    """Use this float32 precision whatever the process has set, which is put back afterwards."""
    backend = _switch(device)
    before = getattr(backend, "fp32_precision", None)
    with torch.autocast(device, enabled=False):
        if before is None:  # this torch or device has no such switch
            yield
            return
        backend.fp32_precision = setting
        try:
            yield
        finally:
            backend.fp32_precision = before


def _switch(device: str) -> Any:
    backend = {"cpu": "mkldnn", "cuda": "cuda"}.get(device)
    return getattr(getattr(torch.backends, backend), "matmul", None) if backend else None
