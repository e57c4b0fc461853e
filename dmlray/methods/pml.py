"""Any loss and miner of pytorch-metric-learning by class name.

Source: Musgrave et al., arXiv 2008.09164; KevinMusgrave/pytorch-metric-learning.
The library is imported where it is used, because the import takes half a second.
B batch, D embedding.
"""

import importlib
import inspect
import json
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import Any, cast

import torch
from pydantic import Field, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from dmlray.config_model import ConfigModel
from dmlray.distributions import Float, Space, Value
from dmlray.errors import RunError
from dmlray.losses.cosine import at_least_float32, unit_rows
from dmlray.methods import _base
from dmlray.methods._base import Batch, Outputs, ParameterGroup, Published
from dmlray.methods._embedding import Linear
from dmlray.methods._head import linear_head, principal_head, trainable
from dmlray.nearest_names import did_you_mean

_BASES = {
    "losses": "BaseMetricLossFunction",
    "miners": "BaseMiner",
    "distances": "BaseDistance",
}
_UNFIT = {
    *_BASES.values(), "GenericPairLoss", "BatchedDistance",  # abstract
    "ManifoldLoss", "VICRegLoss", "EmbeddingsAlreadyPackagedAsTriplets",  # ignore labels
    "DynamicSoftMarginLoss",  # its histogram overflows and carries state between steps
}  # fmt: skip
_CLASSIFIES_IMAGES = {"InstanceLoss"}  # each image is a separate class
_ATTEMPTS, _ATTEMPT_DIM = 5, 8  # random batches and embedding size in `attempt`
_MISUSE = (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError)
_TRIED = {"loss", "loss_arguments", "miner", "miner_arguments"}
_FROM_RUN = {"num_classes", "embedding_size", "descriptors_dim"}
_NO_PLAIN_VALUE = {
    "reducer", "embedding_regularizer", "embedding_reg_weight", "weight_regularizer",
    "weight_reg_weight", "weight_init_func", "collect_stats", "mat_based_loss",
}  # fmt: skip


class Config(ConfigModel):
    """Settings of a loss and miner of the library."""

    loss: str = Field("MultiSimilarityLoss", description="class in pytorch_metric_learning.losses")
    loss_arguments: dict[str, Any] = Field(
        default_factory=dict, description="its arguments by name; a distance by its class"
    )
    miner: str | None = Field(None, description="class in pytorch_metric_learning.miners, or null")
    miner_arguments: dict[str, Any] = Field(
        default_factory=dict, description="its arguments by name; a distance by its class"
    )
    dim: int = Field(512, ge=1, le=8192, description="embedding size, numbers per image")
    head_lr_factor: float = Field(
        1.0, gt=0, le=1000, description="learning rate of the head / the run's, unitless"
    )
    loss_lr_factor: float = Field(
        100.0, gt=0, le=10_000, description="learning rate of the loss's own weights / the run's"
    )

    @field_validator("loss", "miner")
    @classmethod
    def _exists(cls, name: str | None, info: ValidationInfo) -> str | None:
        kind = "losses" if info.field_name == "loss" else "miners"
        if name is not None:
            _class(kind, name)
        return name

    @field_validator("loss_arguments", "miner_arguments", mode="before")
    @classmethod
    def _taken(cls, arguments: Any, info: ValidationInfo) -> Any:
        kind = "losses" if info.field_name == "loss_arguments" else "miners"
        name = info.data.get("loss" if kind == "losses" else "miner")
        if not isinstance(arguments, dict):
            raise ValueError(f"{arguments!r} is not allowed. Allowed: a group of keys, or {{}}")
        if name is not None:
            _check_arguments(name, arguments, _settable(kind, name))
        elif arguments and "miner" in info.data:
            raise ValueError("arguments without a miner. Allowed: {}, or set a miner")
        return arguments

    @model_validator(mode="after")
    def _works(self) -> "Config":
        """Try loss and miner on four images: the library checks most values only when it runs."""
        parts = self.model_dump(include=_TRIED)
        if problem := _first_failure(json.dumps(parts, sort_keys=True)):
            raise ValueError(f"{self.names} fails with these arguments: {problem}")
        return self

    @property
    def names(self) -> str:
        """The names of loss and miner, for messages."""
        return " with ".join(filter(None, (self.loss, self.miner)))

    @property
    def needs_pairs(self) -> bool:
        """Whether the loss compares images with images instead of class weights."""
        return self.loss not in _CLASSIFIES_IMAGES and not any(
            name == "num_classes" and parameter.default is parameter.empty
            for name, parameter in _parameters("losses", self.loss).items()
        )

    def attempt(self, labels: Tensor, equal: bool = False) -> str | None:
        """Try loss and miner, and their gradient, on a few random batches.

        Args:
            labels: Labels of each batch, (B,) in [0, C).
            equal: Use equal embeddings for the images of a class.

        Returns:
            What fails, with the library's whole message; None if nothing does.
        """
        for seed in range(_ATTEMPTS):
            random = torch.Generator().manual_seed(seed)
            rows = torch.randn(len(labels), _ATTEMPT_DIM, generator=random)
            embeddings = rows[labels] if equal else rows
            if problem := self._failure(embeddings, labels):
                return problem
        return None

    def _failure(self, embeddings: Tensor, labels: Tensor) -> str | None:
        embeddings = embeddings.clone().requires_grad_()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            try:
                pairs = _miner(self)(embeddings, labels) if self.miner else None
                classes = max(2, int(labels.max()) + 1)
                loss = _loss(self, classes, embeddings.shape[1])(embeddings, labels, pairs).sum()
                if not loss.isfinite():
                    return "the loss is not finite"
                (gradient,) = torch.autograd.grad(loss, embeddings)
            except Exception as error:  # the library raises many types
                return " ".join(str(error).split()) or type(error).__name__
        return None if gradient.isfinite().all() else "the gradient of the loss is not finite"


@lru_cache(maxsize=1024)
def _first_failure(parts: str) -> str | None:
    """Why loss and miner of these settings fail on four images: tried once for each setting.

    Args:
        parts: The settings `_TRIED` as JSON.
    """
    config = Config.model_construct(**json.loads(parts))
    return config._failure(torch.eye(4), torch.tensor([0, 0, 1, 1]))


SPACE: Space = {
    "method.head_lr_factor": Float(1.0, 30.0, log=True),
    "method.loss_lr_factor": Float(1.0, 1000.0, log=True),
    "optimizer.lr": Float(1e-5, 1e-3, log=True),
    "optimizer.weight_decay": Float(1e-5, 1e-3, log=True),
}

PUBLISHED: dict[str, Published] = {}  # many losses without a common recipe


class Learner(_base.Learner):
    """Trunk, linear head, a loss, possibly with parameters, and an optional miner."""

    def __init__(self, config: Config, trunk: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.trunk = trunk
        self.head = linear_head(width, config.dim)
        self.objective = _loss(config, classes, config.dim)
        self.miner = _miner(config) if config.miner else None

    def initialise_head(self, features: Tensor) -> None:
        """Initialise the head from the principal directions of the frozen features (N, F)."""
        principal_head(self.head, features)

    def forward(self, batch: Batch) -> Outputs:
        """Return `embeddings` (B, D), not normalised."""
        return {"embeddings": self.head(self.trunk(batch.images))}

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss of pytorch-metric-learning on the pairs that its miner selects."""
        embeddings = at_least_float32(outputs["embeddings"])
        with torch.autocast(labels.device.type, enabled=False):
            try:
                pairs = self.miner(embeddings, labels) if self.miner else None
                loss = self.objective(embeddings, labels, pairs)
            except _MISUSE as error:
                if "memory" in str(error):  # not caused by the batch
                    raise
                problem = " ".join(str(error).split())
                raise RunError(f"{self.config.names} fails on a batch: {problem}") from error
        return {self.config.loss: loss.sum()}  # MarginLoss with learn_beta returns (1,)

    def embed(self, images: Tensor) -> Tensor:
        """Embed images (B, 3, H, W) as unit vectors (B, D)."""
        return unit_rows(self.head(self.trunk(images)))  # (B, D)

    def groups(self) -> list[ParameterGroup]:
        """Return the parameters of trunk, head and, if it has any, the loss."""
        groups = [
            ParameterGroup("trunk", trainable(self.trunk)),
            ParameterGroup("head", trainable(self.head), self.config.head_lr_factor),
        ]
        own = trainable(self.objective)
        return [*groups, ParameterGroup("loss", own, self.config.loss_lr_factor)] if own else groups


def embedding_head(config: Config, size: int) -> Linear:
    """Describe the head of embeddings (B, size)."""
    return Linear(dim=size)


@cache
def available(kind: str) -> dict[str, type[nn.Module]]:
    """Return the usable classes of the library's `losses`, `miners` or `distances`, by name."""
    library = importlib.import_module(f"pytorch_metric_learning.{kind}")
    base = getattr(library, _BASES[kind])
    return {
        name: cast(type[nn.Module], member)
        for name, member in sorted(vars(library).items())
        if inspect.isclass(member) and issubclass(member, base) and name not in _UNFIT
    }


def _class(kind: str, name: str) -> type[nn.Module]:
    known = available(kind)
    if name not in known:
        raise ValueError(f"unknown name {name!r} among the {kind}.{_nearest(name, known)}")
    return known[name]


def _nearest(word: str, known: Iterable[str]) -> str:
    guess = did_you_mean(word, sorted(known), most=3)
    return f"{guess} Allowed: {', '.join(sorted(known)) or 'none'}"


def _check_arguments(name: str, arguments: Mapping[str, Any], settable: set[str]) -> None:
    for argument, value in arguments.items():
        if argument in _FROM_RUN:
            raise ValueError(f"{name} gets {argument} from the run. Allowed: leave it out")
        if argument not in settable:
            raise ValueError(f"{name} takes no {argument!r}.{_nearest(argument, settable)}")
        if not isinstance(value, Value):
            raise ValueError(f"{argument}: {value!r} is not allowed. Allowed: one number or text")
        if argument == "distance":
            _class("distances", str(value))


def _settable(kind: str, name: str) -> set[str]:
    return set(_parameters(kind, name)) - _FROM_RUN - _NO_PLAIN_VALUE


@cache
def _parameters(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """Parameters of the constructor, including those passed to base classes by **kwargs."""
    owner = _class(kind, name)
    parameters: dict[str, inspect.Parameter] = {}
    for ancestor in owner.__mro__[: owner.__mro__.index(nn.Module)]:
        if "__init__" in vars(ancestor):
            for key, parameter in list(inspect.signature(ancestor).parameters.items()):
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                    parameters.setdefault(key, parameter)
    return parameters


def _loss(config: Config, classes: int, dim: int) -> nn.Module:
    """Build the loss; the number of classes and the size are passed only if it requires them."""
    owner = _class("losses", config.loss)
    sizes = {"num_classes": classes, "embedding_size": dim, "descriptors_dim": dim}
    needed = {
        name: sizes[name]
        for name, parameter in _parameters("losses", config.loss).items()
        if name in sizes and parameter.default is parameter.empty
    }
    return owner(**needed, **_values(config.loss_arguments))


def _miner(config: Config) -> nn.Module:
    return _class("miners", str(config.miner))(**_values(config.miner_arguments))


def _values(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with the name of a distance replaced by an instance."""
    values: dict[str, Any] = dict(arguments)
    if "distance" in values:
        values["distance"] = _class("distances", values["distance"])()
    return values
