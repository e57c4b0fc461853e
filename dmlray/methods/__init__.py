"""One file per method; its name is its only registration.

Each file holds `Config` (knobs), `SPACE` (where searching is sensible), `PUBLISHED` (the authors'
settings and scores per data set, or per "DATA SET, VALUE" of one of the knobs), `Learner`, and
`embedding_head`, which describes what inference needs of it besides the trunk.
"""

import importlib
import pkgutil
from collections.abc import Iterable
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
    "load",
    "names",
    "needs_pairs",
    "published",
]


class Method(Protocol):
    """What a file of this folder offers."""

    Config: type[ConfigModel]
    SPACE: Space
    PUBLISHED: dict[str, Published]

    def Learner(
        self, config: ConfigModel, trunk: nn.Module, width: int, classes: int
    ) -> Learner: ...

    def embedding_head(self, config: ConfigModel, size: int) -> EmbeddingHead: ...


def names() -> list[str]:
    """Names of all methods, sorted."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


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
    """Whether a method with these settings learns nothing from a class alone in its batch."""
    return bool(getattr(config, "needs_pairs", False))


def published(name: str, dataset: Any, values: Iterable[Any] = ()) -> Published | None:
    """What the authors say of a method on a data set, or of one variant of it there.

    A variant is chosen by `values` of the method's knobs, such as `diva` or `authors2018`; what it
    does not say itself is as the data set's entry has it.
    """
    entries = load(name).PUBLISHED
    entry = entries.get(dataset)
    for value in values:
        variant = entries.get(f"{dataset}, {value}")
        if entry and variant:
            settings = {**entry.settings, **variant.settings}
            entry = Published(settings, variant.scores, variant.source)
    return entry
