"""What a data set is: one file of this package with one `SPEC`."""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from dmlray.data.archives.download import Source
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.found import Found


@dataclass(frozen=True)
class Benchmark:
    """Published facts of a data set of the field; pairs are (train, test).

    Source: Wah et al., CNS-TR-2011-001; Krause et al., 3dRR 2013; Song et al., CVPR 2016,
    arXiv 1511.06452, whose split by classes all methods take for all three.

    Attributes:
        title: Its name in papers.
        folders: Names that its folder is known by.
        marks: Patterns of files that lie in it and in no other benchmark.
        wanted: The layouts that are read, in words.
    """

    name: str
    title: str
    folders: tuple[str, ...]
    marks: tuple[str, ...]
    wanted: str
    classes: tuple[int, int]
    images: tuple[int, int]


@dataclass(frozen=True)
class DatasetSpec:
    """A data set: how its images are listed, what was published of it and where it is from.

    Attributes:
        about: One line for `dmlray data list`.
        load: `load(root)`, or `load(root, split, keep)` of a user's own images.
        find: `find(root)`, or `find(root, split)`: as `load`, whether or not all images are there.
        own_images: A user's own images, whose split is the user's to choose.
        source: Its public archive.
        no_source: Why there is none, and what to do.
    """

    name: str
    about: str
    load: Callable[..., Dataset]
    find: Callable[..., Found]
    own_images: bool = False
    benchmark: Benchmark | None = None
    source: Source | None = None
    no_source: str = ""


@cache
def specs() -> dict[str, DatasetSpec]:
    """Collect the `SPEC` of every file of this package, by name, sorted."""
    package = __name__.rpartition(".")[0]
    folder = importlib.import_module(package).__path__
    modules = [importlib.import_module(f"{package}.{m.name}") for m in pkgutil.iter_modules(folder)]
    found = [
        spec for module in modules if isinstance(spec := vars(module).get("SPEC"), DatasetSpec)
    ]
    return {spec.name: spec for spec in sorted(found, key=lambda spec: spec.name)}
