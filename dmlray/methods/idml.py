"""IDML: a similarity that discounts uncertain images, trained with mixed images as well.

Source: Wang et al., arXiv 2205.04449 and 2309.09982; code wzzheng/IDML at c49aaa3, with its
defaults: Proxy-Anchor on introspective similarities. The pair losses are reconstructions, see
`losses/idml_pairs.py`. B batch, C classes, D embedding.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from dmlray.config_model import ConfigModel
from dmlray.distributions import Choice, Float, Space, Value
from dmlray.losses.cosine import at_least_float32, unit_rows
from dmlray.losses.idml import IntrospectiveProxyAnchor
from dmlray.losses.idml_pairs import IntrospectivePairs, PairForm
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup, Published
from dmlray.methods._embedding import Linear
from dmlray.methods._head import linear_head, principal_head, trainable

_ACTIVATIONS = {"none": nn.Identity, "relu": nn.ReLU, "softplus": nn.Softplus}


class Config(ConfigModel):
    """Settings of IDML."""

    dim: int = Field(512, ge=1, le=8192, description="size of both embeddings, numbers per image")
    loss: Literal["proxy_anchor"] | PairForm = Field(
        "proxy_anchor", description="introspective loss; all but proxy_anchor are reconstructions"
    )
    metric: Literal["released", "live"] = Field(
        "released", description="unit uncertainties, no effect with proxies (official), or any size"
    )
    uncertainty_activation: Literal["none", "relu", "softplus"] = Field(
        "none", description="after the uncertainty head; none is official"
    )
    unit_semantics: bool = Field(
        True, description="proxy_anchor: unit semantic embeddings; false is the code's --l2-norm 0"
    )
    margin: float = Field(0.1, ge=0, lt=1, description="proxy_anchor: slack on the similarity")
    alpha: float = Field(
        32.0, gt=0, le=1024, description="proxy_anchor: inverse temperature, unitless"
    )
    tau: float = Field(5.0, gt=0, le=1000, description="larger: weaker uncertainty, unitless")
    offset: float = Field(
        4.0, ge=0, le=1000, description="proxy_anchor: squared uncertainty of each pair, unitless"
    )
    proxy_spread: float = Field(
        1.0, gt=0, le=100, description="standard deviation of the initial proxies / Kaiming's"
    )
    mixup_beta: float = Field(
        1.0, gt=0, le=100, description="both parameters of the Beta distribution of shares"
    )
    mixup_weight: float = Field(
        1.0, ge=0, le=100, description="weight of the loss of mixed images, unitless; 0: no mixing"
    )
    head_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the semantic head / the run's, unitless"
    )
    proxy_lr_factor: float = Field(
        100.0,
        gt=0,
        le=10_000,
        description="learning rate of the proxies / the run's; margin's boundaries: 1",
    )

    @property
    def needs_pairs(self) -> bool:
        """Whether the loss compares images with images."""
        return self.loss != "proxy_anchor"


# Batch sizes near the specification's that are divisible by each images_per_class.
SPACE: Space = {
    "optimizer.lr": Float(5e-5, 2e-3, log=True),
    "method.proxy_lr_factor": Float(10.0, 1000.0, log=True),
    "optimizer.weight_decay": Float(1e-6, 1e-2, log=True),
    "method.alpha": Float(8.0, 64.0, log=True),
    "method.margin": Float(0.0, 0.4),
    "method.tau": Float(1.0, 20.0, log=True),
    "method.offset": Float(0.0, 8.0),
    "method.proxy_spread": Float(0.3, 3.0, log=True),
    "method.metric": Choice(("released", "live")),
    "method.mixup_beta": Float(0.2, 2.0, log=True),
    "method.mixup_weight": Float(0.0, 1.5),
    "method.dim": Choice((64, 128, 256, 512)),
    "budget.warmup_epochs": Choice((0, 1, 2, 5, 10)),
    "optimizer.step_epochs": Choice((5, 10, 20)),
    "optimizer.gamma": Float(0.25, 0.7),
    "data.batch_size": Choice((60, 100, 120, 180)),
    "data.images_per_class": Choice((None, 2, 4, 5)),
}

_CUB: dict[str, Value] = {
    "method.dim": 512,
    "method.loss": "proxy_anchor",
    "method.metric": "released",
    "method.margin": 0.1,
    "method.alpha": 32.0,
    "method.tau": 5.0,
    "method.offset": 4.0,
    "method.proxy_spread": 1.0,
    "method.mixup_beta": 1.0,
    "method.mixup_weight": 1.0,
    "method.head_lr_factor": 1.0,
    "method.proxy_lr_factor": 100.0,
    "backbone.name": "resnet50",
    "backbone.pooling": "avg+max",
    "backbone.batchnorm": "frozen_statistics",
    "data.batch_size": 120,
    "data.images_per_class": None,
    "data.transform.resize": None,
    "data.transform.crop": "random_resized",
    "data.transform.size": 224,
    "data.transform.flip": 0.5,
    "data.transform.eval_resize": 256,
    "optimizer.name": "adamw",
    "optimizer.lr": 6e-4,
    "optimizer.weight_decay": 1e-4,
    "optimizer.schedule": "step",
    "optimizer.step_epochs": 5,
    "optimizer.gamma": 0.5,
    "optimizer.clip_value": 10.0,
    "budget.epochs": 60,
    "budget.warmup_epochs": 5,
}
_CARS: dict[str, Value] = {**_CUB, "optimizer.lr": 2.5e-4, "optimizer.step_epochs": 10}
_SOP: dict[str, Value] = {**_CUB, "optimizer.step_epochs": 10, "optimizer.gamma": 0.25}
_SOURCE = "wzzheng/IDML README and its results table, ResNet-50 512; best epoch by test R@1"
_PAIR_SOURCE = "results table in wzzheng/IDML; settings and code not released"


def _scores(percent: str, second: int = 2) -> dict[str, float]:
    """A row of the results table: R@1, R@second, NMI, RP, MAP@R."""
    names = ("recall_at_1", f"recall_at_{second}", "nmi", "r_precision", "map_at_r")
    values = (round(float(number) / 100, 3) for number in percent.split())
    return dict(zip(names, values, strict=True))


# R@1, R@2 (SOP: R@10), NMI, RP and MAP@R in percent, of CUB, Cars and SOP.
_PAIRS = {
    "triplet": ("65.3 76.5 69.5 36.2 25.0", "73.7 84.0 67.3 33.8 24.1", "77.4 89.4 90.1 51.9 49.0"),
    "contrastive": (
        "67.2 77.6 71.3 37.5 25.7", "85.5 91.5 72.5 38.8 29.0", "77.3 89.7 90.0 51.7 48.5",
    ),
    "margin": ("67.9 78.3 72.1 37.2 26.1", "86.1 91.7 73.0 39.2 29.7", "79.4 90.6 91.0 53.7 50.4"),
    "multi_similarity": (
        "69.0 79.5 73.5 38.5 27.2", "86.3 92.2 74.1 40.0 30.8", "79.7 91.4 91.2 53.7 50.9",
    ),
}  # fmt: skip

PUBLISHED: dict[str, Published] = {
    "cub": Published(_CUB, _scores("70.7 80.2 73.5 39.3 28.4") | {"recall_at_4": 0.879}, _SOURCE),
    "cars": Published(_CARS, _scores("90.6 94.5 76.9 42.6 33.8") | {"recall_at_4": 0.971}, _SOURCE),
    "sop": Published(_SOP, _scores("81.5 92.7 92.3 54.8 51.3", 10), _SOURCE),
    "inshop": Published(_SOP, {}, "settings of SOP in wzzheng/IDML README; none for In-Shop"),
} | {  # keys that are not the name of a data set set no defaults
    f"{name}, {loss}": Published(
        {"method.loss": loss}, _scores(row, 10 if name == "sop" else 2), _PAIR_SOURCE
    )
    for loss, rows in _PAIRS.items()
    for name, row in zip(("cub", "cars", "sop"), rows, strict=True)
}


def draw_mixing(count: int, beta: float, device: torch.device) -> tuple[float, Tensor]:
    """Draw the share of each image, from Beta(beta, beta), and the partner of each, (B,).

    The share is drawn on the CPU: equal on equally seeded workers, and without device sync.
    """
    share = float(torch.distributions.Beta(beta, beta).sample())
    return share, torch.randperm(count, device=device)


class Learner(_base.Learner):
    """Trunk, a semantic and an uncertainty head, and a loss on both."""

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = linear_head(width, config.dim)
        self.uncertainty_head = nn.Linear(width, config.dim)
        self.activation = _ACTIVATIONS[config.uncertainty_activation]()
        self.criterion = _criterion(config, classes)

    def initialise_head(self, features: Tensor) -> None:
        """Initialise the semantic head from principal directions of frozen features (N, F)."""
        principal_head(self.head, features)

    def forward(self, batch: Batch) -> Outputs:
        """Return `semantic` and `uncertainty` (B, D); in training also those of mixed images.

        Then `partner_labels` (B,) are the second labels of the mixed images and `share` (B,),
        the same for all, is the weight of the first. Partners may be on another device.
        Source: wzzheng/IDML, train.py, lines 196-205 and 253-259.
        """
        outputs = self._embeddings(batch.images)
        if not self.training or not self.config.mixup_weight:
            return outputs
        images, gathered = batch.images, batch.gather(batch.images)
        share, drawn = draw_mixing(len(gathered), self.config.mixup_beta, images.device)
        partners = drawn[batch.local_slice]
        mixed = self._embeddings(share * images + (1 - share) * gathered[partners])
        outputs |= {f"mixed_{name}": tensor for name, tensor in mixed.items()}
        outputs["partner_labels"] = batch.gather(batch.labels)[partners]
        outputs["share"] = outputs["semantic"].new_full((len(images),), share)
        return outputs

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of the clean images, and of the mixed ones for each label."""
        semantic, uncertainty = outputs["semantic"], outputs["uncertainty"]
        terms = {"clean": self.criterion(semantic, uncertainty, labels)}
        if "share" in outputs:
            mixed = outputs["mixed_semantic"], outputs["mixed_uncertainty"]
            share, weight = outputs["share"].mean(), self.config.mixup_weight
            terms["mixed"] = weight * share * self.criterion(*mixed, labels)
            partner_loss = self.criterion(*mixed, outputs["partner_labels"])
            terms["mixed_partner"] = weight * (1 - share) * partner_loss
        return terms

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) by their semantic part, unit vectors (B, D)."""
        return unit_rows(self.head(self.trunk(images)))  # (B, D)

    def groups(self) -> list[ParameterGroup]:
        """With `released` warm-up freezes the uncertainty head with the trunk, as in the code."""
        trunk, uncertainty = trainable(self.trunk), trainable(self.uncertainty_head)
        frozen = self.config.metric == "released" and bool(trunk)
        factor = 1.0 if self.config.loss == "margin" else self.config.proxy_lr_factor
        groups = [
            ParameterGroup("trunk", [*trunk, *uncertainty] if frozen else trunk),
            ParameterGroup("head", trainable(self.head), self.config.head_lr_factor),
            ParameterGroup("uncertainty", [] if frozen else uncertainty),
            ParameterGroup("proxies", trainable(self.criterion), factor),
        ]
        return [group for group in groups if group.parameters or group.name == "trunk"]

    def _embeddings(self, images: Tensor) -> Outputs:
        features = self.trunk(images)
        semantic = at_least_float32(self.head(features))
        uncertainty = self.activation(at_least_float32(self.uncertainty_head(features)))
        if self.config.unit_semantics:
            semantic = unit_rows(semantic)
        if self.config.metric == "released":
            uncertainty = unit_rows(uncertainty)
        return {"semantic": semantic, "uncertainty": uncertainty}


def embedding_head(config: Config, size: int) -> Linear:
    """Describe the head of embeddings (B, size)."""
    return Linear(dim=size)


def _criterion(config: Config, classes: int) -> nn.Module:
    if config.loss != "proxy_anchor":
        return IntrospectivePairs(config.loss, classes, config.tau)
    return IntrospectiveProxyAnchor(
        classes, config.dim, config.margin, config.alpha,
        config.tau, config.offset, config.proxy_spread,
    )  # fmt: skip
