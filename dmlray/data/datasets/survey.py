"""Survey a folder or a table of images: counts, sizes, broken files, possible folds."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dmlray.data import folds
from dmlray.data.cache.broken import leave_out
from dmlray.data.cache.cache_build import Progress
from dmlray.data.cache.decode import decoded_size
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import huggingface, parquet, registry
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import verify
from dmlray.errors import DataError

SAMPLED = 2000  # evenly spread images whose size is read

Spread = tuple[int, int, int]  # smallest, median, largest


@dataclass(frozen=True)
class Survey:
    """A usable data set without its broken images, and its description.

    `short_side` is in pixels, of at most `SAMPLED` images; `broken` maps files to reasons;
    `remarks` go into every score of these images; `fold_counts` are the allowed numbers of
    class-disjoint folds of the training classes.
    """

    source: Path
    split: Split
    dataset: Dataset
    short_side: Spread
    broken: Mapping[str, str]
    remarks: tuple[str, ...]
    fold_counts: tuple[int, ...]

    @property
    def images_per_class(self) -> Spread:
        """Count the images of each class."""
        return _spread(np.bincount(self.dataset.labels))

    @property
    def train_images(self) -> int:
        """Count the images of the training classes."""
        return int((self.dataset.labels < self.dataset.train_classes).sum())


def survey(source: Path, progress: Progress | None = None) -> Survey:
    """List the images of a folder or a table, decode each once, and count.

    An existing split is used: folders train and test, or a column split.

    Args:
        source: Folder, CSV or parquet file, or a folder written by `save_to_disk`.
        progress: Called with (images decoded, total images).

    Raises:
        DataError: If train or test has fewer than two classes, or no image can be read; if files
            are missing, or an image is in two classes or in both train and test.
    """
    listing, split = _list(source)
    name, count = listing.dataset.name, len(listing.dataset)
    checked = verify(name, source, progress, split)
    if len(checked.unreadable) == count:
        file, reason = next(iter(checked.reasons.items()))
        raise DataError(f"{source}: no image of {count} can be read, first {file}: {reason}.")
    dataset = registry.load(name, source, split, lambda listed: leave_out(listed, checked.reasons))
    folds.check_sides(dataset, halved=split == "classes")
    return Survey(
        source=source,
        split=split,
        dataset=dataset,
        short_side=_spread(_short_sides(dataset)),
        broken=checked.reasons,
        remarks=tuple(dict.fromkeys((*dataset.remarks, *checked.notes))),
        fold_counts=tuple(folds.suitable(dataset, "kfold")),
    )


def _list(source: Path) -> tuple[DatasetListing, Split]:
    """List the images with the given split, else the first half of the classes trains."""
    name = kind_of(source)
    with suppress(DataError):
        return registry.find(name, source, "given"), "given"
    return registry.find(name, source, "classes"), "classes"


def kind_of(source: Path) -> str:
    """Name the data set that reads a folder or a file of one's own images."""
    if source.is_file():
        return parquet.NAME if source.suffix.lower() == parquet.SUFFIX else "csv"
    if not source.is_dir():
        return "folder"
    if huggingface.is_saved(source):
        return huggingface.NAME
    return parquet.NAME if parquet.parts(source) else "folder"


def _short_sides(dataset: Dataset) -> list[int]:
    """Read the short sides in pixels of up to `SAMPLED` images from their headers."""
    rows = np.linspace(0, len(dataset) - 1, min(len(dataset), SAMPLED)).round().astype(int)
    return [min(decoded_size(dataset.root / dataset.files[row], None)) for row in rows]


def _spread(numbers: Sequence[int] | np.ndarray) -> Spread:
    return int(np.min(numbers)), int(np.median(numbers)), int(np.max(numbers))
