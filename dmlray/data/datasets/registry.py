"""Data sets by name; each is one module with `load(root)` and `find(root)`."""

from pathlib import Path
from typing import Protocol

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import cars, csv_file, cub, folder, icons, sop
from dmlray.data.datasets.found import Found
from dmlray.data.datasets.train_test import Keep, Split, everything
from dmlray.errors import ConfigError

__all__ = ["Dataset", "load", "names"]


class _Official(Protocol):
    """A module of a data set that has its own split."""

    def load(self, root: Path | None) -> Dataset: ...

    def find(self, root: Path | None) -> Found: ...


class _Own(Protocol):
    """A module of a user's own images."""

    def load(self, root: Path | None, split: Split, keep: Keep) -> Dataset: ...

    def find(self, root: Path | None, split: Split) -> Found: ...


_OFFICIAL: dict[str, _Official] = {"cars": cars, "cub": cub, "demo": icons, "sop": sop}
_OWN: dict[str, _Own] = {"csv": csv_file, "folder": folder}


def names() -> list[str]:
    """Names of all data sets, sorted."""
    return sorted(_OFFICIAL | _OWN)


def about(name: str) -> str:
    """One line on the data set `name`: the first of its module."""
    return ((_OFFICIAL | _OWN)[name].__doc__ or "").split("\n")[0]


def load(
    name: str, root: Path | None, split: Split = "classes", keep: Keep = everything
) -> Dataset:
    """List the images of the data set `name`, which lie below `root`.

    Args:
        keep: Takes broken images out before the others are compared.

    Raises:
        ConfigError: As `find` does.
        DataError: If its images are missing, or something else forbids to use it.
    """
    if name in _OWN:
        return _OWN[name].load(root, split, keep)
    return keep(_official(name, split).load(root))


def find(name: str, root: Path | None, split: Split = "classes") -> Found:
    """List it whether or not all images are there; `Found.problems` has what else is wrong.

    Raises:
        ConfigError: If there is no such data set, it wants a root and has none, or its split is
            not the user's to give.
        DataError: If no layout fits or lists contradict each other.
    """
    if name in _OWN:
        return _OWN[name].find(root, split)
    return _official(name, split).find(root)


def _official(name: str, split: Split) -> _Official:
    if name not in _OFFICIAL:
        allowed = ", ".join(names())
        raise ConfigError("data.name", [f"unknown data set {name!r}. Allowed: {allowed}."])
    if split != "classes":
        allowed = f"Allowed: classes, or a data.name of {', '.join(_OWN)}"
        raise ConfigError(
            "data.split", [f"{split} is not for {name}, which has its own. {allowed}."]
        )
    return _OFFICIAL[name]
