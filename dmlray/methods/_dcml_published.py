"""DCML's published settings and scores, and DiVA's for the same four heads."""

from typing import cast

from dmlray.knobs import Value
from dmlray.methods._contract import Published


def _drop_at(epoch: int, epochs: int) -> Value:
    """The only drop; half an epoch late, because the plan rounds fractions of the run down."""
    return cast(Value, ((epoch + 0.5) / epochs,))  # plans take lists, which Value does not name


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
    "optimizer.name": "adam",
    "optimizer.lr": 1e-5,
    "optimizer.weight_decay": 4e-4,
    "optimizer.schedule": "multistep",
    "optimizer.milestones": _drop_at(55, 300),
    "optimizer.gamma": 0.2,
    "budget.epochs": 300,
}
# The only command that the authors demonstrably ran; their README prints no score for it.
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
    """DiVA's own runs: its settings per data set are few."""
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


_SCORES = "wzzheng/IDML table 1, ResNet-50 512"
_SOURCE = f"wzzheng/DCML README and parameters.py, ResNet-50; scores of DCML: {_SCORES}"
_DIVA = f"Confusezius/ECCV2020_DiVA_MultiFeature_DML SampleRuns; scores of DiVA: {_SCORES}"

# Those of a data set's name are what `dmlray` begins with there; the others are for the record.
PUBLISHED: dict[str, Published] = {
    "cub": Published(_CUB, {"recall_at_1": 0.684, "recall_at_2": 0.779, "nmi": 0.718}, _SOURCE),
    "cars": Published(_CUB, {"recall_at_1": 0.852, "recall_at_2": 0.918, "nmi": 0.739}, _SOURCE),
    "sop": Published(_CUB, {"recall_at_1": 0.798, "recall_at_10": 0.908, "nmi": 0.908}, _SOURCE),
    "cub, DCML with DiVA": Published(_README, {}, "wzzheng/DCML README, its typing errors mended"),
    "cub, DiVA": Published(
        _diva(alpha=0.3, rho=1500.0, drop=55, epochs=350),
        {"recall_at_1": 0.692, "recall_at_2": 0.793, "nmi": 0.714},
        _DIVA,
    ),
    "cars, DiVA": Published(
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
    "cub, margin loss without DCML": Published(
        {}, {"recall_at_1": 0.659, "recall_at_2": 0.770, "nmi": 0.695}, f"Margin-DW: {_SCORES}"
    ),
    "cars, margin loss without DCML": Published(
        {}, {"recall_at_1": 0.826, "recall_at_2": 0.887, "nmi": 0.693}, f"Margin-DW: {_SCORES}"
    ),
    "sop, margin loss without DCML": Published(
        {}, {"recall_at_1": 0.785, "recall_at_10": 0.899, "nmi": 0.901}, f"Margin-DW: {_SCORES}"
    ),
}
