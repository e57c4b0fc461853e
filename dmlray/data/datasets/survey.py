"""What a folder or a CSV file of images holds: counts, sizes, broken files, possible folds."""

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
from dmlray.data.datasets import registry
from dmlray.data.datasets.found import Found
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import verify
from dmlray.errors import DataError

SAMPLED = 2000  # images whose size is read, spread evenly

Spread = tuple[int, int, int]  # smallest, median, largest


@dataclass(frozen=True)
class Survey:
    """A usable data set and what describes it; its broken images are left out of `dataset`.

    `short_side` is in pixels, of at most `SAMPLED` images; `broken` maps files to reasons;
    `remarks` are what every score of these images will carry; `fold_counts` are the numbers of
    class-disjoint folds of the training classes on which scores mean something.
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
        return _spread(np.bincount(self.dataset.labels))

    @property
    def train_images(self) -> int:
        return int((self.dataset.labels < self.dataset.train_classes).sum())


def survey(source: Path, progress: Progress | None = None) -> Survey:
    """List the images of a folder or a CSV file, decode each once, and count.

    A given split is followed where there is one: folders or a column split of train and test.

    Args:
        progress: Called with (images decoded, images in all).

    Raises:
        DataError: If there are no images, no two classes on each side, or no image can be read;
            if files are missing, or the same image is in two classes or on both sides.
    """
    found, split = _found(source)
    name, count = found.dataset.name, len(found.dataset)
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


def _found(source: Path) -> tuple[Found, Split]:
    """The listed images and their split: as given, else the first half of the classes trains."""
    name = "csv" if source.is_file() else "folder"
    with suppress(DataError):
        return registry.find(name, source, "given"), "given"
    return registry.find(name, source, "classes"), "classes"


def _short_sides(dataset: Dataset) -> list[int]:
    """Shorter sides in pixels of up to `SAMPLED` images, from their headers."""
    rows = np.linspace(0, len(dataset) - 1, min(len(dataset), SAMPLED)).round().astype(int)
    return [min(decoded_size(dataset.root / dataset.files[row], None)) for row in rows]


def _spread(numbers: Sequence[int] | np.ndarray) -> Spread:
    return int(np.min(numbers)), int(np.median(numbers)), int(np.max(numbers))
