"""One file per method; its name is its only registration.

Each file holds `Config` (knobs), `SPACE` (where searching is sensible), `PUBLISHED` (the authors'
settings and scores per data set) and `Learner`.
"""

import importlib
import pkgutil
from typing import Protocol, cast

from torch import nn

from dmlray.errors import ConfigError
from dmlray.knobs import Knobs, Space
from dmlray.methods._contract import Batch, Group, Learner, Outputs, Published

__all__ = ["Batch", "Group", "Learner", "Method", "Outputs", "Published", "load", "names"]


class Method(Protocol):
    """What a file of this folder offers."""

    Config: type[Knobs]
    SPACE: Space
    PUBLISHED: dict[str, Published]

    def Learner(self, config: Knobs, trunk: nn.Module, width: int, classes: int) -> Learner: ...


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
