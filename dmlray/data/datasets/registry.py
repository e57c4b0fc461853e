"""Data sets by name."""

from dataclasses import replace
from pathlib import Path

from dmlray.data.archives.download import Source
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.spec import DatasetSpec, specs
from dmlray.data.datasets.train_test import Keep, Split, all_train, everything
from dmlray.errors import ConfigError

__all__ = ["Dataset", "about", "find", "load", "names", "source"]


def names() -> list[str]:
    """Return the names of all data sets, sorted."""
    return list(specs())


def about(name: str) -> str:
    """Describe the data set `name` in one line."""
    return specs()[name].about


def load(
    name: str, root: Path | None, split: Split = "classes", keep: Keep = everything
) -> Dataset:
    """List the images of the data set `name`, which lie below `root`.

    Args:
        name: Name of the data set.
        root: Folder of its images; None for one that needs none.
        split: Which classes train and which test.
        keep: Removes broken images before the others are compared.

    Raises:
        ConfigError: As `find` does.
        DataError: If its images are missing, or another problem forbids its use.
    """
    spec = _spec(name, split)
    if spec.own_images:
        return spec.load(root, split, keep)
    dataset = spec.load(root)
    return keep(all_train(dataset) if split == "all" else dataset)


def find(name: str, root: Path | None, split: Split = "classes") -> DatasetListing:
    """List the data set `name`, even if images are missing; `problems` has other problems.

    Raises:
        ConfigError: If there is no such data set, it needs a root and has none, or its split
            cannot be chosen.
        DataError: If no layout fits or lists contradict each other.
    """
    spec = _spec(name, split)
    if spec.own_images:
        return spec.find(root, split)
    listing = spec.find(root)
    return replace(listing, dataset=all_train(listing.dataset)) if split == "all" else listing


def source(name: str) -> Source:
    """Return the public archive of the data set `name`.

    Raises:
        ConfigError: If it has none.
    """
    spec = specs().get(name)
    if spec and spec.source:
        return spec.source
    allowed = ", ".join(other.name for other in specs().values() if other.source)
    problem = f"data set {name!r} has no public URL. Allowed: {allowed}."
    raise ConfigError("`fetched`", [spec.no_source or problem if spec else problem])


def _spec(name: str, split: Split) -> DatasetSpec:
    spec = specs().get(name)
    if spec is None:
        allowed = ", ".join(names())
        raise ConfigError("data.name", [f"unknown data set {name!r}. Allowed: {allowed}."])
    if split == "given" and not spec.own_images:
        own = ", ".join(other.name for other in specs().values() if other.own_images)
        problem = f"{split} is not for {name}, which has its own"
        raise ConfigError(
            "data.split", [f"{problem}. Allowed: classes, all, or a data.name of {own}."]
        )
    return spec
