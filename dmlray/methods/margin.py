"""Margin loss with distance-weighted sampling, and DRML's pair losses with hard negatives.

Source: Wu et al., ICCV 2017, arXiv 1706.07567; codes wzzheng/DCML (`sampling: distance`) and
zbr17/DRML with zbr17/GeDML 1f76ac2 (`sampling: hard`).
Departs: all draws stay on the device, one triplet per image; impossible ones are not counted.
B batch, C classes, D embedding.
"""

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dmlray.config_model import ConfigModel
from dmlray.distributions import Choice, Float, Space
from dmlray.losses.cosine import unit_rows
from dmlray.losses.margin import Count, margin_loss
from dmlray.losses.triplet import triplet_loss
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup
from dmlray.methods._embedding import Linear
from dmlray.methods._head import linear_head, principal_head, trainable
from dmlray.methods._margin_published import PUBLISHED
from dmlray.methods._triplets import Triplets, by_distance, draw

__all__ = ["PUBLISHED", "SPACE", "Config", "Learner", "by_hardness", "distances"]

_SMOOTHING = {"distance": 1e-8, "hard": 0.0}  # under the root, as in each authors' code


class Config(ConfigModel):
    """Settings of the margin and triplet losses."""

    needs_pairs: ClassVar[bool] = True

    dim: int = Field(512, ge=1, le=8192, description="embedding size, numbers per image")
    loss: Literal["margin", "triplet"] = Field(
        "margin", description="distances against a boundary per class, or against each other"
    )
    sampling: Literal["distance", "hard"] = Field(
        "distance", description="negatives: drawn uniformly over distances, or nearest (DRML)"
    )
    margin: float = Field(0.2, ge=0, le=2, description="slack on the distance of unit vectors")
    beta: float = Field(1.2, ge=0, le=2, description="initial boundary of each class, a distance")
    count: Count = Field(
        "triplets", description="margin: mean over triplets, or their halves, with non-zero loss"
    )
    lower_cutoff: float = Field(
        0.5, gt=0, lt=2, description="distance below which negatives are drawn uniformly"
    )
    head_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the head / the run's, unitless"
    )
    beta_lr_factor: float = Field(
        50.0, gt=0, le=10_000, description="learning rate of the boundaries / the run's, unitless"
    )


SPACE: Space = {
    "method.margin": Float(0.05, 1.0),
    "method.beta": Float(0.4, 1.4),
    "method.lower_cutoff": Float(0.3, 0.8),
    "method.head_lr_factor": Float(1.0, 30.0, log=True),
    "method.beta_lr_factor": Float(1.0, 1000.0, log=True),
    "optimizer.lr": Float(2e-6, 1e-4, log=True),
    "optimizer.weight_decay": Float(1e-5, 2e-3, log=True),
    "data.batch_size": Choice((32, 60, 100, 112, 180)),
    "data.images_per_class": Choice((2, 4)),
}


class Learner(_base.Learner):
    """Trunk, linear head, and a boundary per class."""

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = linear_head(width, config.dim)
        self.beta = None
        if config.loss == "margin":
            self.beta = nn.Parameter(torch.full((classes,), config.beta))

    def initialise_head(self, features: Tensor) -> None:
        """Initialise the head from the principal directions of the frozen features (N, F)."""
        principal_head(self.head, features)

    def forward(self, batch: Batch) -> Outputs:
        """Return `embeddings` (B, D), not normalised."""
        return {"embeddings": self.head(self.trunk(batch.images))}

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the triplets drawn from the batch."""
        units = unit_rows(outputs["embeddings"])
        triplets = draw_triplets(self.config, units.detach(), labels)
        boundaries = None if self.beta is None else self.beta[labels[triplets.anchors]]
        return {self.config.loss: triplets_loss(self.config, units, triplets, boundaries)}

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit vectors (B, D)."""
        return unit_rows(self.head(self.trunk(images)))  # (B, D)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk, head and boundaries."""
        groups = [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.head), self.config.head_lr_factor),
        ]
        if self.beta is not None:
            factor = self.config.beta_lr_factor
            groups.append(ParameterGroup("beta", [self.beta], factor, weight_decay=0.0))
        return groups


def embedding_head(config: Config, size: int) -> Linear:
    """Describe the head of embeddings (B, size)."""
    return Linear(dim=size)


def draw_triplets(config: Config, units: Tensor, labels: Tensor) -> Triplets:
    """Draw one triplet per row of units (B, D); labels (B,)."""
    if config.sampling == "hard":
        return by_hardness(units, labels, config.lower_cutoff)
    return by_distance(units, labels, config.lower_cutoff)


def triplets_loss(
    config: Config, units: Tensor, triplets: Triplets, boundaries: Tensor | None
) -> Tensor:
    """Compute the loss of triplets of units (B, D): a scalar, in units of distance.

    Args:
        config: Which loss, and its margins.
        units: Unit vectors (B, D).
        triplets: Indices of the images of T triplets.
        boundaries: Boundary of each triplet's class (T,); None for `loss: triplet`.
    """
    anchors, smoothing = units[triplets.anchors], _SMOOTHING[config.sampling]
    near = distances(anchors, units[triplets.positives], smoothing)
    far = distances(anchors, units[triplets.negatives], smoothing)
    if boundaries is None:
        return triplet_loss(near, far, triplets.usable, config.margin)
    return margin_loss(near, far, boundaries, triplets.usable, config.margin, config.count)


def distances(rows: Tensor, others: Tensor, smoothing: float = 0.0) -> Tensor:
    """Euclidean distances of rows (..., D) to others (..., D): (...); zero gradient at 0."""
    squares = (rows - others).square().sum(-1) + smoothing
    apart = squares > 0
    return squares.where(apart, 1).sqrt().where(apart, 0)


def by_hardness(units: Tensor, labels: Tensor, nearest: float) -> Triplets:
    """Draw one triplet per anchor: any positive, and the nearest negative.

    Distances below `nearest`, or below the farthest positive of the batch if that is less, count
    as equal: the first of these is taken.
    Source: zbr17/GeDML 1f76ac2, hard_selector.py.
    """
    same, rows = labels[:, None] == labels, torch.arange(len(labels), device=labels.device)
    partners = same & (rows[:, None] != rows)
    apart = torch.cdist(units, units, compute_mode="donot_use_mm_for_euclid_dist")
    floor = apart.where(same, 0).amax().clamp(max=nearest)
    negatives = apart.maximum(floor).masked_fill(same, torch.inf).argmin(1)
    positives = draw(torch.zeros_like(apart), partners)
    return Triplets(rows, positives, negatives, partners.any(1) & ~same.all(1))
