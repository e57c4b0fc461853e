"""Is a data set what its name promises: layout, counts, order of classes, and every file."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dmlray.data import catalogue
from dmlray.data.benchmarks import BENCHMARKS
from dmlray.data.dataset import Dataset
from dmlray.data.found import Found
from dmlray.data.sides import Split
from dmlray.errors import DataError

BATCH = 64  # files between two words of progress
GONE = (FileNotFoundError, NotADirectoryError)
THREADS = 8  # they wait for the disk, not for a core

Progress = Callable[[int, int], None]
Pair = tuple[int, int]


@dataclass(frozen=True)
class Verification:
    """What was found in `root` and what was expected; pairs are (train, test), files relative.

    `problems` forbid its use, `notes` go with every score of it.
    `fingerprint` is None where a file cannot be reached, `expected_*` where nothing was published.
    """

    name: str
    layout: str
    root: Path
    classes: Pair
    images: Pair
    expected_classes: Pair | None
    expected_images: Pair | None
    missing: tuple[str, ...]
    unreadable: tuple[str, ...]
    class_order: str
    fingerprint: str | None
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def well(self) -> bool:
        return not self.problems


def verify(
    name: str, root: Path | None, progress: Progress | None = None, split: Split = "classes"
) -> Verification:
    """Check the data set `name` below `root`; `progress` hears (files done, files in all).

    Raises:
        ConfigError: If there is no such data set, or if it wants a root and has none.
        DataError: If no layout fits or its lists contradict each other.
    """
    return _verify(catalogue.find(name, root, split), progress)


def verify_dataset(dataset: Dataset, progress: Progress | None = None) -> Verification:
    """Check the files of any data set."""
    return _verify(Found("class folders", "as listed", dataset), progress)


def _verify(found: Found, progress: Progress | None) -> Verification:
    dataset = found.dataset
    missing, unreadable = _open_all(dataset, progress or (lambda done, count: None))
    train_images = int((dataset.labels < dataset.train_classes).sum())
    published = next((known for known in BENCHMARKS if known.name == dataset.name), None)
    return Verification(
        name=dataset.name,
        layout=found.layout,
        root=dataset.root,
        classes=(dataset.train_classes, len(dataset.classes) - dataset.train_classes),
        images=(train_images, len(dataset) - train_images),
        expected_classes=published.classes if published else None,
        expected_images=published.images if published else None,
        missing=missing,
        unreadable=unreadable,
        class_order=found.order,
        fingerprint=_fingerprint(dataset),
        problems=(
            *(dataset.remarks if published else ()),  # not what was published
            *found.problems,
            *_said("missing", missing),
            *_said("unreadable", unreadable),
        ),
        notes=() if published else dataset.remarks,
    )


def _fingerprint(dataset: Dataset) -> str | None:
    try:
        return dataset.fingerprint
    except DataError:  # a file is missing or out of reach: it is listed as such
        return None


def _said(what: str, files: Sequence[str]) -> Iterator[str]:
    if files:
        yield f"{len(files)} {what} images, first {files[0]}"


def _open_all(dataset: Dataset, progress: Progress) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Open the header of every file: those that are missing, and those that are no image."""
    files, count = dataset.files, len(dataset)
    batches = [files[start : start + BATCH] for start in range(0, count, BATCH)]
    errors: dict[str, Exception] = {}
    pool = ThreadPoolExecutor(THREADS)
    try:
        with warnings.catch_warnings():
            # Set once, around the threads: the filters are the whole process's.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            for number, bad in enumerate(pool.map(lambda b: _open(dataset.root, b), batches), 1):
                errors |= bad
                progress(min(number * BATCH, count), count)
    finally:
        pool.shutdown(cancel_futures=True)
    gone = {file for file, error in errors.items() if isinstance(error, GONE)}
    return tuple(f for f in errors if f in gone), tuple(f for f in errors if f not in gone)


def _open(root: Path, files: Sequence[str]) -> dict[str, Exception]:
    errors: dict[str, Exception] = {}
    for file in files:
        try:
            with Image.open(root / file):
                pass
        except Exception as error:  # Pillow's readers have no common error: OSError, struct, ...
            errors[file] = error
    return errors
