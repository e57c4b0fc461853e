"""DRML's published settings and scores."""

from typing import cast

from dmlray.distributions import Value
from dmlray.methods._base import Published

_CUB: dict[str, Value] = {
    "method.recipe": "readme2022",
    "method.dim": 512,
    "method.branches": 4,
    "method.margin": 0.2,
    "method.alpha": 64.0,
    "method.final_weight": 10.0,
    "method.recon_weight": 1.0,
    "method.head_lr_factor": 20.0,
    "method.proxy_lr_factor": 200.0,
    "backbone.name": "bn_inception",
    "backbone.pooling": "avg+max",
    "backbone.batchnorm": "frozen",
    "data.batch_size": 180,
    "data.images_per_class": None,
    "data.transform.resize": 256,
    "data.transform.crop": "random_resized",
    "data.transform.scale": cast(Value, (0.16, 1.0)),  # plans accept lists, Value does not
    "data.transform.size": 224,
    "data.transform.flip": 0.5,
    "data.transform.eval_resize": 256,
    "optimizer.name": "adamw",
    "optimizer.lr": 5e-5,
    "optimizer.weight_decay": 1e-4,
    "optimizer.schedule": "step",
    "optimizer.step_epochs": 10,
    "optimizer.gamma": 0.5,
    "budget.epochs": 60,
    "budget.warmup_epochs": 1,
}
_CARS: dict[str, Value] = {**_CUB, "optimizer.step_epochs": 20}
_SOP: dict[str, Value] = {**_CUB, "optimizer.lr": 3e-4, "backbone.batchnorm": "train"}
_RELEASE_2021: dict[str, Value] = {
    **_CUB,
    "method.recipe": "release2021",
    "method.margin": 0.1,
    "method.alpha": 32.0,
    "method.final_weight": 1.0,
    "method.head_lr_factor": 10.0,
    "method.proxy_lr_factor": 1000.0,
    "data.batch_size": 120,
    "data.transform.size": 227,
    "optimizer.lr": 1e-5,
    "optimizer.step_epochs": 1,
    "budget.epochs": 61,
    "budget.warmup_epochs": 0,
}
_PAPER: dict[str, Value] = {
    **_CUB,
    "method.recon_weight": 0.1,
    "method.head_lr_factor": 10.0,
    "method.proxy_lr_factor": 1000.0,
    "method.branch_input": "full",
    "method.detach_nodes_for_final": True,
    "method.edge_norm": "linear",
    "method.recon": "l2",
    "optimizer.lr": 1e-5,
}
_CUB_SCORES = {
    "recall_at_1": 0.687,
    "recall_at_2": 0.786,
    "recall_at_4": 0.863,
    "recall_at_8": 0.916,
    "nmi": 0.693,
}
_CARS_SCORES = {
    "recall_at_1": 0.869,
    "recall_at_2": 0.921,
    "recall_at_4": 0.952,
    "recall_at_8": 0.974,
    "nmi": 0.721,
}
_SCORES = "scores of the README, Inception-BN 512, best epoch by test R@1"
_SOURCE_2021 = f"zbr17/DRML README of 2021-09-06, the rest from its args.csv; {_SCORES}"

# Entries named like a data set are the defaults for it, or for a recipe of it; the paper's are for
# reference.
PUBLISHED: dict[str, Published] = {
    "cub": Published(
        _CUB,
        _CUB_SCORES,
        f"zbr17/DRML README (2022), command for CUB; {_SCORES}",
    ),
    "cars": Published(
        _CARS,
        _CARS_SCORES,
        "zbr17/DRML README (2022) has a command for CUB alone: its settings, steps as in "
        f"Proxy-Anchor on Cars; {_SCORES}",
    ),
    "sop": Published(
        _SOP,
        {"recall_at_1": 0.715, "recall_at_10": 0.852, "recall_at_100": 0.930},
        "no command was published: that for CUB, learning rate and batch norm as in Proxy-Anchor "
        "for SOP; scores from a later paper's table",
    ),
    "cub, release2021": Published(_RELEASE_2021, _CUB_SCORES, _SOURCE_2021),
    "cars, release2021": Published(_RELEASE_2021, _CARS_SCORES, _SOURCE_2021),
    "cub, paper": Published(
        _PAPER, {}, "the paper's equations and rates from secondary sources; the rest as in code"
    ),
}
