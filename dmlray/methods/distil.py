"""Distillation: one network learns the embeddings of a teacher, such as a merged ensemble.

The teacher's vectors are given, one of each training image as evaluation cuts it; labels are not
used. The student keeps the teacher's first D principal directions, and its distances and angles.
Source of the relational terms: Park et al., Relational Knowledge Distillation, CVPR 2019.
B batch, F backbone width, D embedding, R width of the teacher.
"""

from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from dmlray.config_model import ConfigModel
from dmlray.distributions import Float, Space
from dmlray.local_paths import local_path
from dmlray.losses.cosine import unit_rows
from dmlray.losses.distil import angle_term, cosine_term, distance_term
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup, Published
from dmlray.methods._embedding import Linear
from dmlray.methods._head import linear_head, principal_head, trainable


class Config(ConfigModel):
    """Settings of distillation."""

    teacher: Path | None = Field(
        None, description="folder of the finished run or exported model to learn from; required"
    )
    dim: int = Field(512, ge=1, le=8192, description="embedding size, numbers per image")
    cosine_weight: float = Field(
        1.0, ge=0, le=1000, description="of 1 - cosine to the teacher's principal directions"
    )
    distance_weight: float = Field(
        1.0, ge=0, le=1000, description="of the loss of relative distances between two images"
    )
    angle_weight: float = Field(
        2.0, ge=0, le=1000, description="of the loss of angles between three images"
    )
    head_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the head / the run's, unitless"
    )

    @field_validator("teacher", mode="before")
    @classmethod
    def _from_anywhere(cls, teacher: Any) -> Any:
        given = isinstance(teacher, str | Path)
        return local_path(teacher).absolute() if given else teacher  # workers stand elsewhere

    @model_validator(mode="after")
    def _a_loss(self) -> "Config":
        if not (self.cosine_weight or self.distance_weight or self.angle_weight):
            raise ValueError("all weights are 0. Allowed: at least one above 0")
        return self


SPACE: Space = {
    "method.cosine_weight": Float(0.1, 10.0, log=True),
    "method.distance_weight": Float(0.1, 50.0, log=True),
    "method.angle_weight": Float(0.1, 100.0, log=True),
    "method.head_lr_factor": Float(1.0, 30.0, log=True),
    "optimizer.lr": Float(1e-5, 3e-3, log=True),
    "optimizer.weight_decay": Float(1e-6, 1e-3, log=True),
}

PUBLISHED: dict[str, Published] = {}  # none distils an ensemble


class Learner(_base.Learner):
    """Trunk and linear head; needs `Batch.targets`."""

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = linear_head(width, config.dim)

    def initialise_head(self, features: Tensor) -> None:
        """Initialise the head from the principal directions of the frozen features (N, F)."""
        principal_head(self.head, features)

    def forward(self, batch: Batch) -> Outputs:
        """Return `embeddings` (B, D), not normalised, and the teacher's `targets` (B, R)."""
        assert batch.targets is not None
        return {"embeddings": self.head(self.trunk(batch.images)), "targets": batch.targets}

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the terms whose weight is not 0, weighted."""
        config, rows, targets = self.config, outputs["embeddings"], outputs["targets"]
        # Principal directions come first; where the teacher has fewer, the others stay 0.
        principal = F.pad(targets, (0, config.dim - targets.shape[1]))
        terms = {
            "cosine": (config.cosine_weight, cosine_term, principal),
            "distance": (config.distance_weight, distance_term, targets),
            "angle": (config.angle_weight, angle_term, targets),
        }
        return {
            name: weight * term(rows, theirs)
            for name, (weight, term, theirs) in terms.items()
            if weight
        }

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit vectors (B, D)."""
        return unit_rows(self.head(self.trunk(images)))  # (B, D)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk and head."""
        return [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.head), self.config.head_lr_factor),
        ]


def embedding_head(config: Config, size: int) -> Linear:
    """Describe the head of embeddings (B, size)."""
    return Linear(dim=size)
