"""Settings of DCML, their search space, and the published settings of DCML and DiVA.

C classes, K sub-embeddings, M composites, D width of each.
"""

from typing import Literal, cast

from pydantic import Field, model_validator

from dmlray.config_model import ConfigModel
from dmlray.distributions import Choice, Float, Int, Space, Value
from dmlray.losses.margin import Count
from dmlray.methods._base import Published
from dmlray.methods._triplets import Sharing


class Config(ConfigModel):
    """Settings of DCML."""

    mode: Literal["plain", "paper", "diva"] = Field(
        "plain", description="diva is the authors' code; paper a reconstruction from its figure"
    )
    dim: int = Field(128, ge=1, le=8192, description="width D of each sub-embedding, numbers")
    sub_embeddings: int = Field(4, ge=1, le=64, description="sub-embeddings K of an image")
    composites: int = Field(4, ge=1, le=64, description="composites M; diva: a multiple of 4")
    margin: float = Field(0.2, ge=0, le=2, description="slack on either side, distance")
    beta: float = Field(1.2, ge=0, le=2, description="first boundary of a class, distance")
    beta_lr_factor: float = Field(
        50.0, ge=0, le=10_000, description="learning rate of boundaries / the run's; 0 fixes them"
    )
    head_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the head / the run's, unitless"
    )
    lower_cutoff: float = Field(
        0.5, gt=0, lt=2, description="distance below which negatives are drawn uniformly"
    )
    count: Count = Field(
        "triplets", description="mean over triplets, or their halves, with non-zero loss"
    )
    lambda_reinf: float = Field(1.0, ge=0, le=100, description="weight of self-reinforcement")
    lambda_subtasks: float = Field(1.0, ge=0, le=100, description="paper: weight of composites")
    alpha_ssl: float = Field(0.5, ge=0, le=100, description="diva: weight of self-similarity")
    alpha_shared: float = Field(0.3, ge=0, le=100, description="diva: weight of shared features")
    alpha_intra: float = Field(0.3, ge=0, le=100, description="diva: weight within classes")
    rho: float = Field(1500.0, ge=0, le=1e5, description="diva: weight of each separation")
    regressor_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="diva: learning rate of the regressors / the run's"
    )
    temperature: float = Field(0.01, gt=0, le=10, description="diva: of self-similarity, unitless")
    queue_size: int = Field(3000, ge=1, le=1_000_000, description="diva: images in the queue")
    key_share: float = Field(
        0.1, gt=0, le=1, description="diva: share of the model in its momentum encoder, per step"
    )
    sharing: Sharing = Field(
        "random", description="diva: positives of other classes; standard is DiVA's paper"
    )
    moco_fixed: bool = Field(
        False, description="diva: weigh the queue per query, as DiVA's later code; DCML does not"
    )
    discriminative_weight: float = Field(
        0.5, ge=0, le=10, description="diva: of the discriminative head in tests, others have 1"
    )

    @property
    def needs_pairs(self) -> bool:
        return self.mode != "diva"  # its other heads compare classes and views

    @model_validator(mode="after")
    def _four_heads(self) -> "Config":
        if self.mode == "diva" and self.composites % 4:
            raise ValueError(
                f"composites: {self.composites} is not allowed with mode diva. "
                "Allowed: a multiple of 4"
            )
        return self


# `optimizer.milestones` is a list and is not searched. Other modes ignore settings of `diva`.
SPACE: Space = {
    "optimizer.lr": Float(2e-6, 1e-4, log=True),
    "optimizer.weight_decay": Float(1e-5, 2e-3, log=True),
    "optimizer.gamma": Float(0.1, 0.5),
    "data.batch_size": Choice((60, 100, 112)),
    "data.images_per_class": Choice((2, 4)),
    "method.head_lr_factor": Float(1.0, 30.0, log=True),
    "method.beta": Float(0.6, 1.4),
    "method.beta_lr_factor": Float(1.0, 500.0, log=True),
    "method.margin": Float(0.05, 0.5),
    "method.lower_cutoff": Float(0.3, 0.8),
    "method.sub_embeddings": Choice((2, 4, 8)),
    "method.composites": Choice((4, 8, 12)),
    "method.dim": Choice((32, 64, 128, 256)),
    "method.lambda_reinf": Float(0.0, 2.0),
    "method.alpha_ssl": Float(0.05, 1.0, log=True),
    "method.alpha_shared": Float(0.05, 1.0, log=True),
    "method.alpha_intra": Float(0.05, 1.0, log=True),
    "method.rho": Float(30.0, 3000.0, log=True),
    "method.temperature": Float(0.005, 0.2, log=True),
    "method.queue_size": Int(1000, 7840),
    "method.key_share": Float(0.001, 0.1, log=True),
    "method.discriminative_weight": Float(0.25, 1.5),
}


def _drop_at(epoch: int, epochs: int) -> Value:
    """Milestone of the only drop; half an epoch later, as the plan rounds fractions down."""
    return cast(Value, ((epoch + 0.5) / epochs,))  # plans accept lists, Value does not


_CUB: dict[str, Value] = {
    "method.mode": "plain",
    "method.dim": 128,
    "method.sub_embeddings": 4,
    "method.composites": 4,
    "method.margin": 0.2,
    "method.beta": 1.2,
    "method.beta_lr_factor": 50.0,
    "method.lower_cutoff": 0.5,
    "backbone.name": "resnet50",
    "backbone.pooling": "avg",
    "backbone.batchnorm": "frozen_statistics",
    "data.batch_size": 100,
    "data.images_per_class": 2,
    "data.replacement": "classes",
    "optimizer.name": "adam",
    "optimizer.lr": 1e-5,
    "optimizer.weight_decay": 4e-4,
    "optimizer.schedule": "multistep",
    "optimizer.milestones": _drop_at(55, 300),
    "optimizer.gamma": 0.2,
    "budget.epochs": 300,
}
# The only command known to be run by the authors; their README has no score for it.
_README: dict[str, Value] = {
    **_CUB,
    "method.mode": "diva",
    "method.alpha_ssl": 0.5,
    "method.alpha_shared": 0.3,
    "method.alpha_intra": 0.3,
    "method.rho": 1500.0,
    "method.temperature": 0.01,
    "method.queue_size": 3000,
    "method.key_share": 0.1,
    "method.sharing": "random",
    "method.moco_fixed": False,
    "optimizer.lr": 1.5e-5,
    "method.beta_lr_factor": 5e-4 / 1.5e-5,
    "method.regressor_lr_factor": 1e-5 / 1.5e-5,
}


def _diva(alpha: float, rho: float, drop: int, epochs: int, **more: Value) -> dict[str, Value]:
    """Settings of DiVA's own runs; few differ between data sets."""
    return {
        **_README,
        **dict.fromkeys(("method.alpha_ssl", "method.alpha_shared", "method.alpha_intra"), alpha),
        "method.rho": rho,
        "method.queue_size": 30 * 112,
        "method.beta_lr_factor": 50.0,
        "method.regressor_lr_factor": 1.0,
        "data.batch_size": 112,
        "optimizer.lr": 1e-5,
        "optimizer.milestones": _drop_at(drop, epochs),
        "budget.epochs": epochs,
        **more,
    }


_SCORES = "wzzheng/IDML table 1"
_SOURCE = f"wzzheng/DCML parameters.py, ResNet-50 512; scores: {_SCORES}"
_DIVA = f"Confusezius/ECCV2020_DiVA_MultiFeature_DML SampleRuns; scores: {_SCORES}"

# Entries named like a data set are the defaults for it; the others are for reference.
PUBLISHED: dict[str, Published] = {
    "cub": Published(_CUB, {"recall_at_1": 0.684, "recall_at_2": 0.779, "nmi": 0.718}, _SOURCE),
    "cars": Published(_CUB, {"recall_at_1": 0.852, "recall_at_2": 0.918, "nmi": 0.739}, _SOURCE),
    "sop": Published(_CUB, {"recall_at_1": 0.798, "recall_at_10": 0.908, "nmi": 0.908}, _SOURCE),
    "cub, diva": Published(_README, {}, "wzzheng/DCML README, typing errors corrected"),
    "cub, DiVA alone": Published(
        _diva(alpha=0.3, rho=1500.0, drop=55, epochs=350),
        {"recall_at_1": 0.692, "recall_at_2": 0.793, "nmi": 0.714},
        _DIVA,
    ),
    "cars, DiVA alone": Published(
        _diva(alpha=0.15, rho=100.0, drop=70, epochs=350, **{"method.discriminative_weight": 0.25}),
        {"recall_at_1": 0.876, "recall_at_2": 0.929, "nmi": 0.722},
        _DIVA,
    ),
    "sop, DiVA": Published(
        _diva(
            alpha=0.2,
            rho=150.0,
            drop=70,
            epochs=150,
            **{
                "method.queue_size": 70 * 112,
                "method.discriminative_weight": 1.0,
                "optimizer.gamma": 0.3,
            },
        ),
        {"recall_at_1": 0.796, "recall_at_10": 0.912, "nmi": 0.906},
        _DIVA,
    ),
}
