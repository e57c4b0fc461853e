"""Cars196: 196 models of cars, the first 98 train; in any layout of the methods' authors.

The order of the annotations is not alphabetical within a make (Acura RL is class 2, Acura Integra
class 6). Both orders give the same 98 training classes: the boundary lies between two makes.
"""

from functools import partial
from pathlib import Path

import numpy as np

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import layouts
from dmlray.data.datasets.dataset_listing import DatasetListing, complete
from dmlray.data.datasets.layouts import ImageGroup
from dmlray.data.datasets.published import foreign
from dmlray.data.datasets.spec import Benchmark, DatasetSpec
from dmlray.errors import DataError

ANNOTATIONS, IMAGES = "cars_annos.mat", "car_ims"
HALVES = {  # folder of images -> annotations; those of cars_test are not part of the kit
    "cars_train": "cars_train_annos.mat",
    "cars_test": "cars_test_annos_withlabels.mat",
}
NAMES = "cars_meta.mat"
KIT = (".", "devkit", "car_devkit/devkit", "car_devkit")  # possible folders of the kit
CARS = Benchmark(
    "cars",
    "Cars196",
    ("cars196", "cars", "car", "stanford_cars", "stanford-cars-dataset", "car_data"),
    ("cars_annos.mat", "car_ims", "cars_train", "cars_test", "devkit/cars_meta.mat"),
    "cars_annos.mat with car_ims/, or cars_train/ and cars_test/ with their annotations, or"
    " images/CLASS NAME/, or train/ and test/",
    (98, 98),
    (8054, 8131),
)


def load(root: Path | None) -> Dataset:
    """List the data set `cars`."""
    return complete(find(root))


def find(root: Path | None) -> DatasetListing:
    """List the data set `cars` by its layout; files may be missing."""
    trees = [partial(tree, CARS) for tree in (layouts.same_classes, layouts.train_and_test)]
    return layouts.search(CARS, root, (_annotated, _kit, _folders, *trees, _nearly))


def _annotated(folder: Path) -> DatasetListing | None:
    """Read cars_annos.mat beside car_ims/."""
    annotations = folder / ANNOTATIONS
    if not (annotations.is_file() and (folder / IMAGES).is_dir()):
        return None
    rows, names = _read(annotations)
    nested = folder / IMAGES / IMAGES  # in Kaggle's copies
    groups = [
        ImageGroup(_label(names, number), files, _trains(number))
        for number, files in layouts.by_id(rows).items()
    ]
    order = f"class ids of {ANNOTATIONS}"
    root = nested.parent if nested.is_dir() else folder
    return layouts.arrange(CARS, "official annotations", order, root, groups)


def _kit(folder: Path) -> DatasetListing | None:
    """Read cars_train/ and cars_test/ with the development kit, in torchvision's layout.

    Each half holds images of all classes, for a classifier; here the classes are split.
    """
    halves = {half: path for half in HALVES if (path := _half(folder, half))}
    if not halves:
        return None
    for half in HALVES:
        if half not in halves:
            raise DataError(f"{folder}: found {next(iter(halves))}/ but {half}/ is missing.")
    rows = [
        (number, f"{path.relative_to(folder).as_posix()}/{name}")
        for half, path in halves.items()
        for number, name in _read(_labels(folder, half), "fname")[0]
    ]
    meta = _in_kit(folder, NAMES)
    names = _read(meta)[1] if meta else []
    groups = [
        ImageGroup(_label(names, number), files, _trains(number))
        for number, files in layouts.by_id(rows).items()
    ]
    order = "class ids of the development kit"
    return layouts.arrange(CARS, "development kit", order, folder, groups)


def _half(folder: Path, half: str) -> Path | None:
    """Find the folder of one half; Kaggle's copies nest it in a folder of the same name."""
    paths = (folder / half / half, folder / half)
    return next((path for path in paths if path.is_dir()), None)


def _labels(folder: Path, half: str) -> Path:
    """Find the annotations of one half."""
    name = HALVES[half]
    if path := _in_kit(folder, name):
        return path
    raise DataError(
        f"{folder}: found {half}/ but {name} is missing, which has the classes of its images."
        f" {ANNOTATIONS} is for {IMAGES}/ only, and cars_test_annos.mat has no classes."
        f" Expected {name} in {folder.name}/ or {folder.name}/devkit/."
    )


def _in_kit(folder: Path, name: str) -> Path | None:
    return next((folder / kit / name for kit in KIT if (folder / kit / name).is_file()), None)


def _folders(folder: Path) -> DatasetListing | None:
    """Read images/CLASS NAME/, ordered by the annotations if they exist."""
    root = folder / "images"
    classes = layouts.class_folders(root)
    if not classes or foreign(CARS, folder):
        return None
    path = folder / ANNOTATIONS
    names = _read(path)[1] if path.is_file() else []
    if names:
        order = f"class ids of {ANNOTATIONS}; alphabetically the same classes train"
        groups = _in_order(path, names, classes)
    else:
        order = f"alphabetical; no {ANNOTATIONS} to compare with"
        groups = [ImageGroup(name, classes[name]) for name in sorted(classes)]
    return layouts.arrange(CARS, "class folders", order, root, groups)


def _nearly(folder: Path) -> None:
    """Raise a DataError if one part of the official layout is missing."""
    if (folder / ANNOTATIONS).is_file() and not (folder / IMAGES).is_dir():
        raise DataError(f"{folder}: found {ANNOTATIONS} but {IMAGES}/ is missing.")
    if (folder / IMAGES).is_dir() and not (folder / ANNOTATIONS).is_file():
        raise DataError(f"{folder}: found {IMAGES}/ but {ANNOTATIONS} is missing.")


def _in_order(path: Path, names: list[str], classes: dict[str, list[str]]) -> list[ImageGroup]:
    """Order class folders by the `names` of the annotations at `path`."""
    ids = {_letters(name): number for number, name in enumerate(names, 1)}
    for name in sorted(classes):
        if _letters(name) not in ids:
            raise DataError(f"{path}: has no class {name!r}, which images/ has.")
    number = {name: ids[_letters(name)] for name in classes}
    _check_alphabet(path, number)
    return [
        ImageGroup(name, classes[name], _trains(number[name]))
        for name in sorted(classes, key=lambda name: number[name])
    ]


def _check_alphabet(path: Path, number: dict[str, int]) -> None:
    """Check that ids and alphabetical order give the same training classes."""
    alphabetical = sorted(number)
    train = sum(map(_trains, number.values()))
    for name in alphabetical[:train]:
        if not _trains(number[name]):
            raise DataError(
                f"{path}: class {name!r} is a test class by its id {number[name]}, but a training"
                " class by the alphabetical order of images/. Expected both to agree."
            )


def _read(path: Path, file: str = "relative_im_path") -> tuple[list[tuple[int, str]], list[str]]:
    """Read (class id from 1, image) rows and class names; either may be absent."""
    from scipy.io import loadmat  # 15 MB in each process, only for this data set

    try:
        content = loadmat(path, simplify_cells=True)
        if not {"annotations", "class_names"} & content.keys():
            raise KeyError("annotations")
        annotations = content.get("annotations", [])
        # A single annotation is a dict, not a list.
        annotations = [annotations] if isinstance(annotations, dict) else annotations
        rows = [(int(row["class"]), str(row[file])) for row in annotations]
        return rows, [str(name) for name in np.atleast_1d(content.get("class_names", []))]
    except Exception as error:  # SciPy's reader raises many types: struct.error, TypeError, ...
        raise DataError(f"{path}: not readable as annotations of Cars196: {error}.") from error


def _trains(number: int) -> bool:
    return number <= CARS.classes[0]


def _label(names: list[str], number: int) -> str:
    return names[number - 1] if 0 < number <= len(names) else str(number)


def _letters(name: str) -> str:
    """Letters and digits of a class name: "Ram C/V" cannot be a folder name."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


SPEC = DatasetSpec(
    "cars",
    "Cars196: 196 models of cars, the first 98 train; in any layout of the methods' authors.",
    load,
    find,
    benchmark=CARS,
    no_source="the official URL of Cars196 is unavailable since 2023. Get car_ims.tgz and "
    "cars_annos.mat from another source and give both as `sources`",
)
