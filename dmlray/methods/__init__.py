"""One file per method, registered by its name.

Each file holds `Config` (settings), `SPACE` (sensible search ranges), `PUBLISHED` (the authors'
settings and scores per data set, or per "DATA SET, VALUE" of a setting), `Learner`, and
`embedding_head`, which describes what inference needs of it besides the trunk.
"""

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from typing import Any, Protocol, cast

from torch import nn

from dmlray.config_model import ConfigModel
from dmlray.distributions import Space
from dmlray.errors import ConfigError
from dmlray.methods._base import Batch, Learner, LibraryLoss, Outputs, ParameterGroup, Published
from dmlray.methods._embedding import EmbeddingHead, Features

__all__ = [
    "Batch",
    "EmbeddingHead",
    "Features",
    "Learner",
    "LibraryLoss",
    "Method",
    "Outputs",
    "ParameterGroup",
    "Published",
    "has_teacher",
    "load",
    "names",
    "needs_pairs",
    "published",
]


class Method(Protocol):
    """Interface of a method's module."""

    Config: type[ConfigModel]
    SPACE: Space
    PUBLISHED: dict[str, Published]

    def Learner(  # noqa: N802  # a class of the module
        self, config: ConfigModel, trunk: nn.Module, width: int, classes: int
    ) -> Learner:
        """Build the learner of `classes` classes on a trunk of `width` features."""

    def embedding_head(self, config: ConfigModel, size: int) -> EmbeddingHead:
        """Describe the head of embeddings (B, size), for inference."""


def names() -> list[str]:
    """Return the names of all methods, sorted."""
    return list(_names())


@cache
def _names() -> tuple[str, ...]:
    modules = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in modules if not name.startswith("_")))


def load(name: str) -> Method:
    """Import the method `name`.

    Raises:
        ConfigError: If there is no such method.
    """
    if name not in names():
        raise ConfigError(
            "method.name", [f"unknown method {name!r}. Allowed: {', '.join(names())}"]
        )
    return cast(Method, importlib.import_module(f"{__name__}.{name}"))


def needs_pairs(config: ConfigModel) -> bool:
    """Whether the loss with these settings needs two images of a class in a batch."""
    return bool(getattr(config, "needs_pairs", False))


def has_teacher(config: ConfigModel) -> bool:
    """Whether a learner with these settings learns from a teacher, `config.teacher`."""
    return "teacher" in type(config).model_fields


def published(name: str, dataset: Any, values: Iterable[Any] = ()) -> Published | None:
    """Return the published settings and scores of a method, or a variant of it, on a data set.

    A variant is chosen by `values` of the method's settings, such as `diva` or `authors2018`; its
    settings override those of the data set's entry.
    """
    entries = load(name).PUBLISHED
    entry = entries.get(dataset)
    for value in values:
        variant = entries.get(f"{dataset}, {value}")
        if entry and variant:
            settings = {**entry.settings, **variant.settings}
            entry = Published(settings, variant.scores, variant.source)
    return entry
