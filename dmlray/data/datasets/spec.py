"""Specification of a data set: each file of this package that is one has a `SPEC`."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from dmlray.data.archives.download import Source
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.dataset_listing import DatasetListing


@dataclass(frozen=True)
class Benchmark:
    """Published facts of a benchmark; pairs are (train, test).

    Source: Wah et al., CNS-TR-2011-001; Krause et al., 3dRR 2013; Song et al., CVPR 2016,
    arXiv 1511.06452, whose split by classes all methods use for these three; Liu et al.,
    DeepFashion, CVPR 2016, for In-Shop.

    Attributes:
        title: Its name in papers.
        folders: Usual names of its folder.
        marks: Patterns of files that only this benchmark has.
        wanted: Description of the supported layouts.
        retrieval: Test images that are (queries, gallery); None without roles.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    marks: tuple[str, ...]
    wanted: str
    classes: tuple[int, int]
    images: tuple[int, int]
    retrieval: tuple[int, int] | None = None


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: functions that list its images, its published facts and its source.

    Attributes:
        about: One line for `dmlray data list`.
        load: `load(root)`, or `load(root, split, keep)` if `own_images`.
        find: `find(root)`, or `find(root, split)`: as `load`, even if images are missing.
        own_images: A user's own images, whose split can be chosen.
        source: Its public archive.
        no_source: Why there is none, and what to do.
    """

    name: str
    about: str
    load: Callable[..., Dataset]
    find: Callable[..., DatasetListing]
    own_images: bool = False
    benchmark: Benchmark | None = None
    source: Source | None = None
    no_source: str = ""


@cache
def specs() -> dict[str, DatasetSpec]:
    """Collect the `SPEC` of every file of this package, sorted by name."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    modules = [importlib.import_module(f"{package}.{m.name}") for m in pkgutil.iter_modules(folder)]
    known = [
        spec for module in modules if isinstance(spec := vars(module).get("SPEC"), DatasetSpec)
    ]
    return {spec.name: spec for spec in sorted(known, key=lambda spec: spec.name)}
