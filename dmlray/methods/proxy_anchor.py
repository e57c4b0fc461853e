"""Proxy-Anchor with one linear head: the baseline that DRML, IDML and RCDML build on.

Source: Kim et al., CVPR 2020, arXiv 2003.13911; code tjddus9597/Proxy-Anchor-CVPR2020. With
`recipe: drml2021` the baseline of zbr17/DRML of 2021-09-06 and zbr17/GeDML 1f76ac2.
B batch, C classes, F backbone width, D embedding.
"""

from typing import Literal, cast

from pydantic import Field
from torch import Tensor, nn

from dmlray.config_model import ConfigModel
from dmlray.distributions import Float, Space, Value
from dmlray.losses.cosine import unit_rows
from dmlray.losses.proxy_anchor import ProxyAnchorLoss
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup, Published
from dmlray.methods._embedding import Linear
from dmlray.methods._head import linear_head, principal_head, trainable


class Config(ConfigModel):
    """Settings of Proxy-Anchor."""

    dim: int = Field(512, ge=1, le=8192, description="embedding size, numbers per image")
    margin: float = Field(0.1, ge=0, lt=1, description="slack on the cosine, unitless")
    alpha: float = Field(32.0, gt=0, le=1024, description="inverse temperature, unitless")
    head_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the head / the run's, unitless"
    )
    proxy_lr_factor: float = Field(
        100.0, gt=0, le=10_000, description="learning rate of the proxies / the run's, unitless"
    )
    recipe: Literal["kim2020", "drml2021"] = Field(
        "kim2020", description="published recipe: initialisation of head and proxies, and defaults"
    )


SPACE: Space = {
    "method.margin": Float(0.0, 0.4),
    "method.alpha": Float(8.0, 128.0, log=True),
    "method.head_lr_factor": Float(1.0, 30.0, log=True),
    "method.proxy_lr_factor": Float(10.0, 1000.0, log=True),
    "optimizer.lr": Float(1e-5, 1e-3, log=True),
    "optimizer.weight_decay": Float(1e-5, 1e-3, log=True),
}

_CUB: dict[str, Value] = {
    "method.recipe": "kim2020",
    "method.dim": 512,
    "method.margin": 0.1,
    "method.alpha": 32.0,
    "method.head_lr_factor": 1.0,
    "method.proxy_lr_factor": 100.0,
    "backbone.name": "bn_inception",
    "backbone.pooling": "avg+max",
    "backbone.batchnorm": "frozen_statistics",
    "data.batch_size": 180,
    "data.images_per_class": None,
    "data.transform.resize": None,
    "data.transform.crop": "random_resized",
    "data.transform.size": 224,
    "data.transform.flip": 0.5,
    "data.transform.eval_resize": 256,
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
_CARS: dict[str, Value] = {**_CUB, "optimizer.step_epochs": 20}
_SOP: dict[str, Value] = {
    **_CUB,
    "backbone.batchnorm": "train",
    "optimizer.lr": 6e-4,
    "optimizer.step_epochs": 20,
    "optimizer.gamma": 0.25,
}
_DRML: dict[str, Value] = {
    "method.recipe": "drml2021",
    "method.head_lr_factor": 10.0,
    "method.proxy_lr_factor": 1000.0,
    "backbone.batchnorm": "frozen",
    "data.batch_size": 120,
    "data.transform.resize": 256,
    "data.transform.scale": cast(Value, (0.16, 1.0)),  # plans accept lists, Value does not
    "data.transform.size": 227,
    "optimizer.lr": 1e-5,
    "optimizer.step_epochs": 1,
    "optimizer.clip_value": None,
    "budget.epochs": 61,
    "budget.warmup_epochs": 0,
}
_SOURCE = "tjddus9597/Proxy-Anchor-CVPR2020 README, Inception-BN 512; best epoch by test R@1"

PUBLISHED: dict[str, Published] = {
    "cub": Published(
        _CUB,
        {"recall_at_1": 0.691, "recall_at_2": 0.789, "recall_at_4": 0.861, "recall_at_8": 0.912},
        _SOURCE,
    ),
    "cars": Published(
        _CARS,
        {"recall_at_1": 0.864, "recall_at_2": 0.919, "recall_at_4": 0.950, "recall_at_8": 0.970},
        _SOURCE,
    ),
    "sop": Published(
        _SOP,
        {
            "recall_at_1": 0.792,
            "recall_at_10": 0.907,
            "recall_at_100": 0.962,
            "recall_at_1000": 0.986,
        },
        _SOURCE,
    ),
    "inshop": Published(
        _SOP,
        {
            "recall_at_1": 0.919,
            "recall_at_10": 0.981,
            "recall_at_20": 0.987,
            "recall_at_30": 0.990,
            "recall_at_40": 0.991,
        },
        _SOURCE,
    ),
}


# Of R@1, R@2, R@4, R@8 and NMI.
_DRML_SCORES = {
    "cub": (0.673, 0.777, 0.857, 0.914, 0.687),
    "cars": (0.844, 0.907, 0.943, 0.968, 0.697),
}
_DRML_NAMES = ("recall_at_1", "recall_at_2", "recall_at_4", "recall_at_8", "nmi")
PUBLISHED |= {
    f"{name}, drml2021": Published(
        _DRML,
        dict(zip(_DRML_NAMES, scores, strict=True)),
        "baseline of zbr17/DRML: README of 2021-09-06, the rest from its args.csv; scores of the "
        "README, Inception-BN 512, best epoch by test R@1",
    )
    for name, scores in _DRML_SCORES.items()
}


class Learner(_base.Learner):
    """Trunk, linear head, and a proxy per class."""

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = linear_head(width, config.dim)
        self.proxy_anchor = ProxyAnchorLoss(classes, config.dim, config.margin, config.alpha)
        if config.recipe == "drml2021":
            self.head = nn.Linear(width, config.dim)
            nn.init.uniform_(self.proxy_anchor.proxies, -(config.dim**-0.5), config.dim**-0.5)

    def initialise_head(self, features: Tensor) -> None:
        """Initialise the head from the principal directions of the frozen features (N, F)."""
        principal_head(self.head, features)

    def forward(self, batch: Batch) -> Outputs:
        """Return `embeddings` (B, D), not normalised."""
        return {"embeddings": self.head(self.trunk(batch.images))}

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the Proxy-Anchor loss."""
        return {"proxy_anchor": self.proxy_anchor(outputs["embeddings"], labels)}

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit vectors (B, D)."""
        return unit_rows(self.head(self.trunk(images)))  # (B, D)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk, head and proxies."""
        return [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.head), self.config.head_lr_factor),
            ParameterGroup("proxies", trainable(self.proxy_anchor), self.config.proxy_lr_factor),
        ]


def embedding_head(config: Config, size: int) -> Linear:
    """Describe the head of embeddings (B, size)."""
    return Linear(dim=size)
