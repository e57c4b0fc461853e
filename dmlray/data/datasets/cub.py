"""CUB-200-2011: 200 kinds of birds, the first 100 train; in any layout of the methods' authors."""

import re
from functools import partial
from pathlib import Path

from dmlray.data.archives.download import Source
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import layouts
from dmlray.data.datasets.dataset_listing import DatasetListing, complete
from dmlray.data.datasets.layouts import ImageGroup
from dmlray.data.datasets.spec import Benchmark, DatasetSpec
from dmlray.errors import DataError

IMAGES, LABELS = "images.txt", "image_class_labels.txt"
NUMBERED = "[0-9][0-9][0-9].*"
ORDER = "official class numbers"
CUB = Benchmark(
    "cub",
    "CUB-200-2011",
    ("CUB_200_2011", "cub200", "cub"),
    ("image_class_labels.txt", *(f"{up}[0-9][0-9][0-9].*" for up in ("", "images/", "train/"))),
    "images.txt with image_class_labels.txt, or images/NNN.Name/, or train/ and test/",
    (100, 100),
    (5864, 5924),
)


def load(root: Path | None) -> Dataset:
    """List the data set `cub`."""
    return complete(find(root))


def find(root: Path | None) -> DatasetListing:
    """List the data set `cub` by its layout; files may be missing."""
    by_sides = partial(layouts.train_and_test, CUB)
    return layouts.search(CUB, root, (_listed, _folders, _same_classes, by_sides))


def _listed(folder: Path) -> DatasetListing | None:
    """Read the official archive: lists of images and of their classes, beside images/."""
    lists = [name for name in (IMAGES, LABELS) if (folder / name).is_file()]
    if not lists:
        return None
    for name in (IMAGES, LABELS):
        if name not in lists:
            raise DataError(f"{folder}: found {folder.name} with {lists[0]} but {name} is missing.")
    return _arrange("official lists", folder / "images", _read_lists(folder))


def _folders(folder: Path) -> DatasetListing | None:
    """Read images/NNN.Name/ or NNN.Name/, unless the official lists exist."""
    if any((folder / name).is_file() for name in (IMAGES, LABELS)):
        return None
    for root in (folder / "images", folder):
        classes = layouts.class_folders(root, NUMBERED)
        if classes:
            return _arrange("class folders", root, classes)
    return None


def _same_classes(folder: Path) -> DatasetListing | None:
    """Read {train,test}/NNN.Name/ where both hold all classes, split by class number."""
    return layouts.same_classes(CUB, folder, lambda label: _trains(folder, label))


def _trains(folder: Path, label: str) -> bool:
    number = re.search(r"[0-9]+", label)
    if number is None:
        raise DataError(
            f"{folder}: class {label!r} has no official number, which decides whether it trains."
            " Expected folders named NNN.Name."
        )
    return int(number[0]) <= CUB.classes[0]


def _read_lists(folder: Path) -> dict[str, list[str]]:
    files = {line[0]: line[1] for _, line in layouts.read_rows(folder / IMAGES, 2)}
    path = folder / LABELS
    classes: dict[str, list[str]] = {}
    for row, (image, label) in layouts.read_rows(path, 2):
        if image not in files:
            raise DataError(f"{path}: line {row}: image {image} is not in {IMAGES}.")
        file = files.pop(image)
        name = file.partition("/")[0]
        if _number(name) != layouts.whole(path, row, label):
            raise DataError(f"{path}: line {row}: class {label}, but {IMAGES} has {file}.")
        classes.setdefault(name, []).append(file)
    if files:
        image, file = next(iter(files.items()))
        raise DataError(f"{path}: {len(files)} images have no class, first {image} ({file}).")
    return classes


def _arrange(layout: str, root: Path, classes: dict[str, list[str]]) -> DatasetListing:
    groups = [
        ImageGroup(name, classes[name], _number(name) <= CUB.classes[0])
        for name in sorted(classes, key=lambda name: (_number(name), name))
    ]
    return layouts.arrange(CUB, layout, ORDER, root, groups)


def _number(name: str) -> int:
    """Official number of a class folder `NNN.Name`, from 1; 0 if it has none."""
    match = re.match(r"([0-9]{3})\.", name)
    return int(match[1]) if match else 0


SPEC = DatasetSpec(
    "cub",
    "CUB-200-2011: 200 kinds of birds, the first 100 train; in any layout of the methods' authors.",
    load,
    find,
    benchmark=CUB,
    source=Source(
        "cub",
        "CUB_200_2011.tgz",
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",
        1_150_585_339,
        "md5:97eceeb196236b17998738112f37df78",
    ),
)
