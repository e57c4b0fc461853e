"""The data sets that have a name; each is one file of this room with a `load(root)`."""

import sys
from collections.abc import Callable
from pathlib import Path

from dmlray.data import demo, folder
from dmlray.data.dataset import Dataset
from dmlray.errors import ConfigError

__all__ = ["Dataset", "load", "names"]

_LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "demo": demo.load,
    "folder": folder.load,
}


def names() -> list[str]:
    """Names of all data sets, sorted."""
    return sorted(_LOADERS)


def about(name: str) -> str:
    """One line on the data set `name`: the first of its module."""
    module = sys.modules[_LOADERS[name].__module__]
    return (module.__doc__ or "").split("\n")[0]


def load(name: str, root: Path | None) -> Dataset:
    """List the images of the data set `name`, which lie below `root`.

    Raises:
        ConfigError: If there is no such data set, or if it wants a root and has none.
        DataError: If its images are missing.
    """
    if name not in _LOADERS:
        allowed = ", ".join(names())
        raise ConfigError("data.name", [f"unknown data set {name!r}. Allowed: {allowed}."])
    return _LOADERS[name](root)
