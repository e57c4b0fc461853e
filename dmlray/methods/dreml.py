"""DREML: an ensemble of small classifiers over random meta classes; this is one of them.

Source: Xuan et al., ECCV 2018, arXiv 1808.04469; codes leftthomas/DREML (`leftthomas`) and
littleredxh/DREML of 2020 and of August 2018 (`authors2020`, `authors2018`).
B batch, C classes, D meta classes, F backbone width.
"""

import logging
import random
from typing import Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dmlray.config_model import ConfigModel
from dmlray.data.meta_classes import assign_meta_classes
from dmlray.distributions import Choice, Float, Int, Space, Value
from dmlray.losses.cosine import at_least_float32, unit_rows
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup, Published
from dmlray.methods._embedding import Features, Linear
from dmlray.methods._head import trainable

Recipe = Literal["leftthomas", "authors2020", "authors2018"]

_logger = logging.getLogger(__name__)


class Config(ConfigModel):
    """Settings of DREML."""

    meta_classes: int = Field(
        12, ge=2, le=100_000, description="meta classes, and embedding size; at most the classes"
    )
    draw_seed: int = Field(0, ge=0, description="seed of this learner's draw of meta classes")
    recipe: Recipe = Field(
        "leftthomas", description="published recipe; authors2018 also normalises the logits"
    )
    embedding: Literal["logits", "pooled"] = Field(
        "logits", description="what is compared: the D logits, or the backbone's F features"
    )
    normalise_logits: bool = Field(False, description="normalise logits to unit length in the loss")
    logit_scale: float = Field(
        1.0, gt=0, le=1000, description="factor on normalised logits in the loss, unitless"
    )


# The recipe is not searched: in the loss it only sets `normalise_logits`.
SPACE: Space = {
    "method.meta_classes": Int(4, 500, log=True),
    "method.embedding": Choice(("logits", "pooled")),
    "method.normalise_logits": Choice((False, True)),
    "method.logit_scale": Float(1.0, 32.0, log=True),
    "optimizer.lr": Float(1e-5, 1e-3, log=True),
    "data.batch_size": Choice((32, 64, 128, 256)),
}

# Mean and deviation of red, green and blue, in the unit of [0, 1] images.
_STATISTICS = {
    "cub": ((0.4707, 0.4601, 0.4549), (0.2767, 0.2760, 0.2850)),
    "cars": ((0.4853, 0.4965, 0.4295), (0.2237, 0.2193, 0.2568)),
    "sop": ((0.5807, 0.5396, 0.5044), (0.2901, 0.2974, 0.3095)),
}
_LEARNER: dict[str, Value] = {
    "method.recipe": "leftthomas",
    "method.meta_classes": 12,
    "backbone.name": "resnet18",
    "backbone.pooling": "avg",
    "backbone.batchnorm": "train",
    "data.batch_size": 128,
    "data.images_per_class": None,
    "data.transform.resize": 281,
    "data.transform.crop": "random",
    "data.transform.size": 256,
    "data.transform.flip": 0.5,
    "data.transform.eval_resize": 256,
    "optimizer.name": "adam",
    "optimizer.lr": 1e-4,
    "optimizer.weight_decay": 0.0,
    "optimizer.schedule": "multistep",  # at .5 and .7 of the epochs, the plan's default
    "optimizer.early_epochs": 1,
    "optimizer.gamma": 0.1,
    "budget.epochs": 20,
}


def _recipe(name: str, **changes: Value) -> dict[str, Value]:
    mean, std = (cast(Value, numbers) for numbers in _STATISTICS[name])  # plans take lists
    statistics = {"data.transform.mean": mean, "data.transform.std": std}
    return {**_LEARNER, **statistics, **changes}


_2020: dict[str, Value] = {
    "method.recipe": "authors2020",
    "optimizer.name": "sgd",
    "optimizer.lr": 0.01,
    "optimizer.momentum": 0.9,
    "optimizer.milestones": cast(Value, (0.5, 0.8)),
    "optimizer.early_epochs": 0,
    "optimizer.gamma": 0.01,
    "budget.epochs": 12,
}
_2018: dict[str, Value] = {
    **_2020,
    "method.recipe": "authors2018",
    "data.transform.rotation": 10.0,
    "optimizer.milestone_rounding": "up",
    "optimizer.gamma": 0.1,
}
_AUTHORS: tuple[tuple[Recipe, dict[str, Value], dict[str, dict[str, float]], str], ...] = (
    (
        "authors2020",
        _2020,
        {"cars": {"recall_at_1": 0.7918, "recall_at_2": 0.8650}},
        "littleredxh/DREML 24f008b; score of its notebook of 2019, 12 learners",
    ),
    ("authors2018", _2018, {}, "littleredxh/DREML 59d8d29"),
)

PUBLISHED: dict[str, Published] = {
    "cub": Published(
        _recipe("cub"),
        {
            "recall_at_1": 0.6352,
            "recall_at_2": 0.7446,
            "recall_at_4": 0.8288,
            "recall_at_8": 0.8901,
            "recall_at_10": 0.9056,
            "recall_at_100": 0.9885,
            "recall_at_1000": 0.9998,
        },
        "leftthomas/DREML README, 48 learners",
    ),
    "cars": Published(
        _recipe("cars"),
        {
            "recall_at_1": 0.8496,
            "recall_at_2": 0.9074,
            "recall_at_4": 0.9427,
            "recall_at_8": 0.9670,
            "recall_at_10": 0.9725,
            "recall_at_100": 0.9979,
            "recall_at_1000": 1.0,
        },
        "leftthomas/DREML README, 48 learners",
    ),
    "sop": Published(
        _recipe("sop", **{"method.meta_classes": 500, "budget.epochs": 50}),
        {
            "recall_at_1": 0.7370,
            "recall_at_2": 0.7857,
            "recall_at_4": 0.8246,
            "recall_at_8": 0.8556,
            "recall_at_10": 0.8639,
            "recall_at_100": 0.9276,
            "recall_at_1000": 0.9643,
        },
        "leftthomas/DREML README, 16 learners",
    ),
    **{
        f"{name}, {recipe}": Published(settings, scores.get(name, {}), source)
        for name in _STATISTICS
        for recipe, settings, scores, source in _AUTHORS
    },
}


class Learner(_base.Learner):
    """Trunk, linear classifier over meta classes, and the random map of classes onto these."""

    meta_class_of: Tensor

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        meta_classes = min(config.meta_classes, classes)
        if meta_classes < config.meta_classes:
            _logger.warning(
                "method.meta_classes: %d is more than the %d classes; using %d",
                config.meta_classes, classes, meta_classes,
            )  # fmt: skip
        assigned = assign_meta_classes(classes, meta_classes, random.Random(config.draw_seed))
        self.register_buffer("meta_class_of", torch.tensor(assigned))  # (C,)
        self.trunk = trunk
        self.head = nn.Linear(width, meta_classes)

    def forward(self, batch: Batch) -> Outputs:
        """Return `logits` (B, D)."""
        return {"logits": self.head(self.trunk(batch.images))}

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the cross-entropy of the meta-classes."""
        logits = at_least_float32(outputs["logits"])
        if self.config.normalise_logits or self.config.recipe == "authors2018":
            logits = self.config.logit_scale * unit_rows(logits)
        return {"cross_entropy": F.cross_entropy(logits, self.meta_class_of[labels])}

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit logits or features, see `embedding`."""
        features = self.trunk(images)
        chosen = self.head(features) if self.config.embedding == "logits" else features
        return unit_rows(chosen)  # (B, D) or (B, F)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk and head."""
        return [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.head)),
        ]


def embedding_head(config: Config, size: int) -> Linear | Features:
    """Describe the head of embeddings (B, size)."""
    return Linear(dim=size) if config.embedding == "logits" else Features()
