"""Numerical precision of a training, from its plan and its device.

Losses and the matrix products of every score are always computed in float32 (IEEE).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import torch
from torch.amp import GradScaler

from dmlray.plans.experiment import BudgetConfig

Products = Literal["ieee", "tf32"]
_HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Precision:
    """Precision of one plan on one device.

    On a GPU, float32 products (in training beside autocast, and of embeddings in evaluation) are
    IEEE if `training` is float32, else TF32 with a mantissa of 10 bits.

    Attributes:
        training: float32, tf32, bfloat16 or float16, the last two by autocast.
        device: Type of the device.
        benchmark: Whether cuDNN benchmarks its algorithms in training.
    """

    training: str
    device: str
    benchmark: bool

    @property
    def evaluation(self) -> str:
        """Precision of embeddings that are scored."""
        return "float32" if self.training == "float32" or self.device != "cuda" else "tf32"

    def __str__(self) -> str:
        if self.training == self.evaluation:
            return self.training
        return f"{self.training}, embeddings in {self.evaluation}"

    @contextmanager
    def train(self) -> Iterator[None]:
        """Set the precision of forward and backward passes; the former also need `autocast`."""
        with self._float32(self.training, self.benchmark):
            yield

    @contextmanager
    def evaluate(self) -> Iterator[None]:
        """Set the precision of embeddings that are scored."""
        with self._float32(self.evaluation, benchmark=False):
            yield

    def autocast(self) -> torch.autocast:
        """Return the autocast context of training, disabled without half precision."""
        half = _HALVES.get(self.training)
        return torch.autocast(self.device, half or torch.bfloat16, enabled=half is not None)

    def scaler(self) -> GradScaler | None:
        """Return a gradient scaler for float16, None for other precisions."""
        return GradScaler(self.device) if self.training == "float16" else None

    @contextmanager
    def _float32(self, precision: str, benchmark: bool) -> Iterator[None]:
        if self.device != "cuda":
            yield
            return
        products: Products = "ieee" if precision == "float32" else "tf32"
        before = [switch.fp32_precision for switch in _switches()], torch.backends.cudnn.benchmark
        try:
            _switch([products] * len(_switches()), benchmark)
            yield
        finally:
            _switch(*before)


def precision_of(budget: BudgetConfig, device: torch.device) -> Precision:
    """Return the precision of `budget` on `device`."""
    return _arithmetic(budget.precision, budget.cudnn_benchmark, device)


@lru_cache
def _arithmetic(asked: str, benchmark: bool, device: torch.device) -> Precision:
    gpu = device.type == "cuda"
    if asked == "auto":
        asked = "bfloat16" if gpu and _has_bfloat16() else "tf32"
    if asked == "tf32" and not gpu:  # CPUs have none
        asked = "float32"
    return Precision(asked, device.type, benchmark and gpu)


def _has_bfloat16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def float32_products() -> dict[str, str]:
    """Return the current precision of float32 products on a GPU, by kind of product."""
    kinds = ("matmul", "convolution")
    return {kind: switch.fp32_precision for kind, switch in zip(kinds, _switches(), strict=False)}


def _switches() -> list[Any]:
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]


def _switch(products: list[Any], benchmark: bool) -> None:
    for switch, setting in zip(_switches(), products, strict=True):
        switch.fp32_precision = setting
    torch.backends.cudnn.benchmark = benchmark
