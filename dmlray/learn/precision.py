"""In what precision a training computes: what its plan asks for, on the device that it has.

Losses are always computed in float32, and so are the products behind every score (IEEE).
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
    """How one device computes for one plan.

    `training` is float32, tf32, bfloat16 or float16, the last two by autocast. What stays in
    float32, on a GPU, is multiplied with float32's mantissa of 23 bits where `training` is
    float32, else with TF32's of 10; that goes for embeddings in evaluation, too.
    """

    training: str
    device: str  # its type
    benchmark: bool  # whether cuDNN tries its algorithms and takes the fastest, in training

    @property
    def evaluation(self) -> str:
        """In what embeddings that are scored are computed."""
        return "float32" if self.training == "float32" or self.device != "cuda" else "tf32"

    def __str__(self) -> str:
        if self.training == self.evaluation:
            return self.training
        return f"{self.training}, embeddings in {self.evaluation}"

    @contextmanager
    def train(self) -> Iterator[None]:
        """Compute forward and backward passes of training, beside `autocast` of the former."""
        with self._float32(self.training, self.benchmark):
            yield

    @contextmanager
    def evaluate(self) -> Iterator[None]:
        """Compute embeddings that are scored."""
        with self._float32(self.evaluation, benchmark=False):
            yield

    def autocast(self) -> torch.autocast:
        """The half precision of training, where it has one."""
        half = _HALVES.get(self.training)
        return torch.autocast(self.device, half or torch.bfloat16, enabled=half is not None)

    def scaler(self) -> GradScaler | None:
        """What keeps small gradients of float16 from vanishing; other precisions need none."""
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
    """How `device` computes what `budget` asks for."""
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
    """In what precision a GPU multiplies float32 now, by kind of product."""
    kinds = ("matmul", "convolution")
    return {kind: switch.fp32_precision for kind, switch in zip(kinds, _switches(), strict=False)}


def _switches() -> list[Any]:
    cudnn: Any = torch.backends.cudnn
    return [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]


def _switch(products: list[Any], benchmark: bool) -> None:
    for switch, setting in zip(_switches(), products, strict=True):
        switch.fp32_precision = setting
    torch.backends.cudnn.benchmark = benchmark
