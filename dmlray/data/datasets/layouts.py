"""Shared parts of benchmark layouts: search, order and split of the classes, completeness.

A layout is a function folder -> `DatasetListing`; it returns None for another layout and raises a
DataError for an incomplete one.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from dmlray.data.cache.formats import SUFFIXES
from dmlray.data.dataset import from_ordered, half
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.listing import real_path
from dmlray.data.datasets.published import (
    benchmarks,
    candidates,
    foreign,
    shortcomings,
    what_is_wrong,
)
from dmlray.data.datasets.spec import Benchmark
from dmlray.data.datasets.train_test import natural
from dmlray.errors import ConfigError, DataError


@dataclass(frozen=True)
class ImageGroup:
    """One class; `trains`: whether it is an official training class, None if unknown."""

    label: str
    files: Sequence[str]
    trains: bool | None = None


Layout = Callable[[Path], DatasetListing | None]


def search(benchmark: Benchmark, root: Path | None, layouts: Sequence[Layout]) -> DatasetListing:
    """Find a benchmark in `root` or below, in the first layout that fits.

    Raises:
        ConfigError: If no root is given.
        DataError: If no layout fits; describes the nearest one.
    """
    if root is None:
        problem = f"data set {benchmark.name!r} needs the folder of {benchmark.title}"
        raise ConfigError("data.root", [f"{problem}. Set data.root."])
    root = real_path(root)
    try:
        return _first_that_fits(benchmark, root, layouts)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}.") from error


def _first_that_fits(benchmark: Benchmark, root: Path, layouts: Sequence[Layout]) -> DatasetListing:
    misses: list[DataError] = []
    for folder in candidates(benchmark, root):
        for layout in layouts:
            try:
                if found := layout(folder):
                    return found
            except DataError as miss:  # raised below unless another layout fits
                misses.append(miss)
    raise misses[0] if misses else DataError(what_is_wrong(benchmark, root))


def arrange(
    benchmark: Benchmark, layout: str, order: str, root: Path, groups: Sequence[ImageGroup]
) -> DatasetListing:
    """Put the training classes first; without an official split the first half trains."""
    groups = [group for group in groups if group.files]
    if len(groups) < 2:
        raise DataError(f"{root}: {len(groups)} classes with images. Expected at least 2.")
    train = sum(group.trains is True for group in groups)
    halved = any(group.trains is None for group in groups) or train in (0, len(groups))
    if halved:
        train = half(len(groups))
    else:
        groups.sort(key=lambda group: not group.trains)
    remarks = shortcomings(benchmark, *_counts(groups, train), halved)
    classes = [(group.label, group.files) for group in groups]
    return DatasetListing(
        layout, order, from_ordered(benchmark.name, root, classes, train, remarks)
    )


def train_and_test(benchmark: Benchmark, folder: Path) -> DatasetListing | None:
    """Read {train,test}/class*/.

    Departs: classes are ordered by the numbers in their names, so that class2 precedes class10;
    the authors' ImageFolder orders them as text.
    """
    train, test = (class_folders(folder, f"{side}/*") for side in ("train", "test"))
    if (len(train), len(test)) != benchmark.classes and foreign(benchmark, folder):
        return None
    if not train or not test:
        if train or test:
            one, other = ("train", "test") if train else ("test", "train")
            raise DataError(f"{folder}: found {one}/ but {other}/ has no class folders of images.")
        return None
    _check_sides(benchmark, folder, train, test)
    groups = [
        ImageGroup(label, side[label], side is train)
        for side in (train, test)
        for label in sorted(side, key=natural)
    ]
    return arrange(benchmark, "train and test folders", "numbers in folder names", folder, groups)


def same_classes(
    benchmark: Benchmark,
    folder: Path,
    trains: Callable[[str], bool | None] = lambda label: None,
) -> DatasetListing | None:
    """Read {train,test}/CLASS/ where both hold all classes, as in copies for classifiers.

    The images of both are merged and the classes are split as published: `trains` decides by a
    folder's name; by default the first half in the order of names trains.
    """
    train, test = (class_folders(folder, f"{side}/*") for side in ("train", "test"))
    if not train or train.keys() != test.keys() or foreign(benchmark, folder):
        return None
    for other in benchmarks():
        if other is not benchmark and len(train) == sum(other.classes):
            raise DataError(
                f"{folder}: {len(train)} classes in both train/ and test/ are those of"
                f" {other.title}, not of {benchmark.title}."
            )
    groups = [
        ImageGroup(label, [*train[label], *test[label]], trains(label))
        for label in sorted(train, key=natural)
    ]
    order = "names of the folders; train/ and test/ hold the same classes and are merged"
    return arrange(benchmark, "class folders of a classifier", order, folder, groups)


def class_folders(root: Path, pattern: str = "*") -> dict[str, list[str]]:
    """Map the names of folders to their images relative to `root`; hidden names are skipped."""
    parent, _, name = pattern.rpartition("/")
    if not (root / parent).is_dir():
        return {}
    classes = {}
    for folder in _visible((root / parent).iterdir()):  # not glob, which hides permission errors
        if fnmatchcase(folder.name, name) and folder.is_dir():
            images = [path for path in _visible(folder.iterdir()) if _is_image(path)]
            classes[folder.name] = [path.relative_to(root).as_posix() for path in images]
    return {name: files for name, files in classes.items() if files}


def by_id(rows: Sequence[tuple[int, str]]) -> dict[int, list[str]]:
    """Group (class id, file) rows into class id -> files, ids ascending."""
    files = defaultdict(list)
    for number, file in rows:
        files[number].append(file)
    return dict(sorted(files.items()))


def read_rows(path: Path, columns: int, counted: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a text file in columns; the last column may have spaces.

    If `counted`, the first line may be the number of rows, which is not compared.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}.") from error
    for number, line in enumerate(text.splitlines(), 1):
        fields = line.strip().split(maxsplit=columns - 1)
        if counted and number == 1 and len(fields) == 1 and fields[0].isdigit():
            continue
        if len(fields) not in (0, columns):
            raise DataError(f"{path}: line {number}: expected {columns} columns, got {line!r:.80}.")
        if fields:
            yield number, fields


def whole(path: Path, line: int, text: str) -> int:
    """Parse a whole number of a text file."""
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise DataError(f"{path}: line {line}: expected a whole number, got {text!r:.80}.")
    return int(text)


def _counts(groups: Sequence[ImageGroup], train: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Count classes and images, each as (train, test)."""
    images = [len(group.files) for group in groups]
    return (train, len(groups) - train), (sum(images[:train]), sum(images[train:]))


def _check_sides(
    benchmark: Benchmark, folder: Path, train: Mapping[str, object], test: Mapping[str, object]
) -> None:
    shared = sorted(train.keys() & test.keys())
    if shared:
        raise DataError(
            f"{folder}: train/ and test/ share {len(shared)} classes, first {shared[0]!r}."
            " Expected test classes that no training image shows."
        )
    for other in benchmarks():
        if other is not benchmark and (len(train), len(test)) == other.classes:
            raise DataError(
                f"{folder}: {len(train)} / {len(test)} classes of train / test are those of"
                f" {other.title}, not of {benchmark.title}."
            )


def _visible(paths: Iterable[Path]) -> list[Path]:
    return [path for path in paths if not path.name.startswith(".")]


def _is_image(path: Path) -> bool:
    """Whether `path` is an image or a broken link to one, which must be reported as missing."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())
