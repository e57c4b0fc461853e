"""The data sets that have a name; each is one file of this room with a `load(root)`."""

import sys
from collections.abc import Callable
from pathlib import Path

from dmlray.data import cars, csv_file, cub, demo, folder, sop
from dmlray.data.dataset import Dataset
from dmlray.data.sides import Split
from dmlray.errors import ConfigError

__all__ = ["Dataset", "load", "names"]

_OFFICIAL: dict[str, Callable[[Path | None], Dataset]] = {
    "cars": cars.load,
    "cub": cub.load,
    "demo": demo.load,
    "sop": sop.load,
}
_OWN: dict[str, Callable[[Path | None, Split], Dataset]] = {
    "csv": csv_file.load,
    "folder": folder.load,
}


def names() -> list[str]:
    """Names of all data sets, sorted."""
    return sorted(_OFFICIAL | _OWN)


def about(name: str) -> str:
    """One line on the data set `name`: the first of its module."""
    module = sys.modules[(_OFFICIAL | _OWN)[name].__module__]
    return (module.__doc__ or "").split("\n")[0]


def load(name: str, root: Path | None, split: Split = "classes") -> Dataset:
    """List the images of the data set `name`, which lie below `root`.

    Raises:
        ConfigError: If there is no such data set, it wants a root and has none, or its split is
            not the user's to give.
        DataError: If its images are missing.
    """
    if name in _OWN:
        return _OWN[name](root, split)
    if name not in _OFFICIAL:
        allowed = ", ".join(names())
        raise ConfigError("data.name", [f"unknown data set {name!r}. Allowed: {allowed}."])
    if split != "classes":
        allowed = f"Allowed: classes, or a data.name of {', '.join(_OWN)}"
        raise ConfigError(
            "data.split", [f"{split} is not for {name}, which has its own. {allowed}."]
        )
    return _OFFICIAL[name](root)
