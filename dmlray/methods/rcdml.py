"""RCDML: Proxy-Anchor with corrected proxies and constraints on proxies and on images of a class.

Source: Zhang et al., Appl. Intell. 2024, doi 10.1007/s10489-024-05425-x; code
Monalissaa/RCDML_pytorch at cef3262, with its defaults. B batch, C classes, D embedding.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dmlray.config_model import ConfigModel
from dmlray.distributions import Choice, Float, Space, Value
from dmlray.losses.cosine import unit_rows
from dmlray.losses.rcdml import (
    Absent,
    corrected_proxies,
    proxy_relationship_loss,
    pull_and_push,
    sample_relationship_loss,
)
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup, Published
from dmlray.methods._embedding import Linear
from dmlray.methods._head import linear_head, principal_head, trainable


class Config(ConfigModel):
    """Settings of RCDML."""

    dim: int = Field(512, ge=1, le=8192, description="embedding size, numbers per image")
    margin: float = Field(0.1, ge=0, lt=1, description="slack on the cosine, unitless")
    alpha: float = Field(32.0, gt=0, le=1024, description="inverse temperature, unitless")
    prc: float = Field(
        0.05, ge=0, le=100, description="weight of the loss between proxies, unitless; 0: left out"
    )
    src: float = Field(
        0.01, ge=0, le=100, description="weight of the loss within classes, unitless; 0: left out"
    )
    pc_mix: float = Field(
        0.3, ge=0, le=1, description="share of the images in a corrected proxy, unitless"
    )
    absent: Absent = Field(
        "zero", description="classes outside the batch: zero ignores them (official), raw does not"
    )
    normalize_proxies: bool = Field(
        False, description="unit proxies before the correction, so that pc_mix keeps its weight"
    )
    prc_reduction: Literal["sum", "mean_pairs"] = Field(
        "sum", description="over ordered pairs of proxies; sum is official"
    )
    src_reduction: Literal["sum", "mean"] = Field(
        "sum", description="over classes with two or more images; sum is official"
    )
    head_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the head / the run's, unitless"
    )
    proxy_lr_factor: float = Field(
        1000.0, gt=0, le=10_000, description="learning rate of the proxies / the run's, unitless"
    )


# A log range cannot include a weight of 0. Batch sizes are near the specification's 64, 90, 128
# and 180, and divisible by each images_per_class.
SPACE: Space = {
    "method.prc": Float(1e-3, 0.5, log=True),
    "method.src": Float(1e-3, 0.3, log=True),
    "method.proxy_lr_factor": Float(10.0, 3000.0, log=True),
    "optimizer.lr": Float(1e-5, 1e-3, log=True),
    "data.images_per_class": Choice((None, 2, 4, 8)),
    "method.alpha": Float(8.0, 64.0, log=True),
    "method.margin": Float(0.0, 0.3),
    "method.pc_mix": Float(0.0, 0.9),
    "method.absent": Choice(("zero", "raw")),
    "method.normalize_proxies": Choice((False, True)),
    "optimizer.weight_decay": Float(1e-6, 1e-2, log=True),
    "optimizer.step_epochs": Choice((5, 10, 15, 20)),
    "optimizer.gamma": Choice((0.25, 0.5, 0.75)),
    "budget.warmup_epochs": Choice((0, 1, 2, 5)),
    "data.batch_size": Choice((64, 88, 128, 176)),
}

_CUB: dict[str, Value] = {
    "method.dim": 512,
    "method.margin": 0.1,
    "method.alpha": 32.0,
    "method.prc": 0.05,
    "method.src": 0.01,
    "method.pc_mix": 0.3,
    "method.absent": "zero",
    "method.normalize_proxies": False,
    "method.prc_reduction": "sum",
    "method.src_reduction": "sum",
    "method.head_lr_factor": 1.0,
    "method.proxy_lr_factor": 1000.0,
    "backbone.name": "bn_inception",
    "backbone.pooling": "avg+max",
    "backbone.batchnorm": "frozen_statistics",
    "data.batch_size": 128,
    "data.images_per_class": None,
    "optimizer.name": "adamw",
    "optimizer.lr": 1e-4,
    "optimizer.weight_decay": 1e-4,
    "optimizer.schedule": "step",
    "optimizer.step_epochs": 10,
    "optimizer.gamma": 0.5,
    "optimizer.clip_value": 10.0,
    "budget.epochs": 60,
    "budget.warmup_epochs": 1,
}

# No scores: the repository has none, and the paper's tables were not available.
PUBLISHED: dict[str, Published] = {
    "cub": Published(
        _CUB, source="Monalissaa/RCDML_pytorch README and code/train_best.py, Inception-BN 512"
    )
}


class Learner(_base.Learner):
    """Trunk, linear head, and a proxy per class."""

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = linear_head(width, config.dim)
        proxies = torch.empty(classes, config.dim)
        self.proxies = nn.Parameter(nn.init.kaiming_normal_(proxies, mode="fan_out"))

    def initialise_head(self, features: Tensor) -> None:
        """Initialise the head from the principal directions of the frozen features (N, F)."""
        principal_head(self.head, features)

    def forward(self, batch: Batch) -> Outputs:
        """Return `embeddings` (B, D), not normalised."""
        return {"embeddings": self.head(self.trunk(batch.images))}

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return Proxy-Anchor's pull and push terms, and the constraints with non-zero weight.

        Source: code/losses.py, line 106.
        """
        config, embeddings = self.config, unit_rows(outputs["embeddings"])
        proxies = unit_rows(self.proxies) if config.normalize_proxies else self.proxies
        columns = corrected_proxies(embeddings, labels, proxies, config.pc_mix, config.absent)
        pull, push = pull_and_push(
            embeddings, labels, columns, len(proxies), config.margin, config.alpha
        )
        terms = {"pull": pull, "push": push}
        if config.prc:
            terms["prc"] = config.prc * proxy_relationship_loss(columns, config.prc_reduction)
        if config.src:
            terms["src"] = config.src * sample_relationship_loss(
                embeddings, labels, config.src_reduction
            )
        return terms

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit vectors (B, D)."""
        return unit_rows(self.head(self.trunk(images)))  # (B, D)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk, head and proxies."""
        return [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.head), self.config.head_lr_factor),
            ParameterGroup("proxies", [self.proxies], self.config.proxy_lr_factor),
        ]


def embedding_head(config: Config, size: int) -> Linear:
    """Describe the head of embeddings (B, size)."""
    return Linear(dim=size)
