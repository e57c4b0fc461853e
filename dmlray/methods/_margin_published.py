"""The margin loss's published settings and scores, and those of DRML's pair losses."""

from typing import cast

from dmlray.distributions import Value
from dmlray.methods._base import Published

# The only drop is half an epoch later, because the plan rounds fractions down.
_DROP = cast(Value, (55.5 / 300,))  # plans accept lists, Value does not

_CUB: dict[str, Value] = {
    "method.dim": 512,
    "method.loss": "margin",
    "method.sampling": "distance",
    "method.margin": 0.2,
    "method.beta": 1.2,
    "method.count": "triplets",
    "method.lower_cutoff": 0.5,
    "method.head_lr_factor": 1.0,
    "method.beta_lr_factor": 50.0,
    "backbone.name": "resnet50",
    "backbone.pooling": "avg",
    "backbone.batchnorm": "frozen_statistics",
    "data.batch_size": 100,
    "data.images_per_class": 2,
    "data.replacement": "classes",
    "data.transform.resize": None,
    "data.transform.crop": "random_resized",
    "data.transform.size": 224,
    "data.transform.flip": 0.5,
    "data.transform.eval_resize": 256,
    "optimizer.name": "adam",
    "optimizer.lr": 1e-5,
    "optimizer.weight_decay": 4e-4,
    "optimizer.schedule": "multistep",
    "optimizer.milestones": _DROP,
    "optimizer.gamma": 0.2,
    "budget.epochs": 300,
}
_DRML: dict[str, Value] = {
    "method.dim": 512,
    "method.loss": "margin",
    "method.sampling": "hard",
    "method.margin": 1.0,
    "method.beta": 0.5,
    "method.count": "halves",
    "method.head_lr_factor": 10.0,
    "method.beta_lr_factor": 1e-2 / 3e-5,
    "backbone.name": "bn_inception",
    "backbone.pooling": "avg+max",
    "backbone.batchnorm": "frozen",
    "data.batch_size": 180,
    "data.images_per_class": 4,
    "data.replacement": "none",
    "data.transform.resize": 256,
    "data.transform.scale": cast(Value, (0.16, 1.0)),
    "data.transform.size": 224,
    "optimizer.name": "adamw",
    "optimizer.lr": 3e-5,
    "optimizer.weight_decay": 1e-4,
}
_DRML_FIRST: dict[str, Value] = {
    **_DRML,
    "data.transform.size": 227,
    "method.margin": 0.8,
    "method.beta": 0.4,
    "method.beta_lr_factor": 1000.0,
    "data.batch_size": 32,
    "optimizer.lr": 1e-5,
}
_DRML_TRIPLET: dict[str, Value] = {
    **{k: v for k, v in _DRML_FIRST.items() if k not in ("method.beta", "method.beta_lr_factor")},
    "method.loss": "triplet",
    "method.margin": 1.0,
}
_SOURCE = (
    "wzzheng/DCML parameters.py, ResNet-50; scores of Margin-DW, 512: wzzheng/IDML, table 1, "
    "reproduced by its authors"
)

# `hard` and `triplet` are DRML's, chosen by these values; its first release is for reference.
PUBLISHED: dict[str, Published] = {
    "cub": Published(_CUB, {"recall_at_1": 0.659, "recall_at_2": 0.770, "nmi": 0.695}, _SOURCE),
    "cars": Published(_CUB, {"recall_at_1": 0.826, "recall_at_2": 0.887, "nmi": 0.693}, _SOURCE),
    "sop": Published(_CUB, {"recall_at_1": 0.785, "recall_at_10": 0.899, "nmi": 0.901}, _SOURCE),
    "cub, hard": Published(_DRML, {}, "zbr17/DRML 55afbdc, sample_launch.json"),
    "cub, margin loss of DRML's first release": Published(
        _DRML_FIRST, {}, "zbr17/DRML 2c416a9, args.csv"
    ),
    "cub, triplet": Published(_DRML_TRIPLET, {}, "zbr17/DRML 2c416a9, config/link"),
}
