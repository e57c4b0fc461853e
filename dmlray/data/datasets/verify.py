"""Verify a data set: layout, counts, order of classes, and every file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmlray.data import boxes
from dmlray.data.cache import cache_build
from dmlray.data.cache.cache_build import Progress
from dmlray.data.cache.decode import limit
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import registry, role_checks
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.published import retrieval_counts
from dmlray.data.datasets.spec import specs
from dmlray.data.datasets.train_test import Split
from dmlray.errors import DataError

Pair = tuple[int, int]


@dataclass(frozen=True)
class Verification:
    """Content of `root` and what was expected; pairs are (train, test), files relative.

    `retrieval` are the test images that are (queries, gallery), None without roles.

    `reasons` has why each of `unreadable` cannot be decoded.
    `problems` forbid its use, `notes` go into every score of it.
    `fingerprint` is None if a file cannot be read, `expected_*` if nothing was published.
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
    reasons: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    retrieval: Pair | None = None
    expected_retrieval: Pair | None = None

    @property
    def is_sound(self) -> bool:
        """Whether no problem was found."""
        return not self.problems


def verify(
    name: str,
    root: Path | None,
    progress: Progress | None = None,
    split: Split = "classes",
    max_pixels: int | None = None,
) -> Verification:
    """Check the data set `name` below `root`.

    Args:
        name: Name of the data set.
        root: Folder of its images; None for one that needs none.
        progress: Called with (images decoded, total images).
        split: Which classes train and which test.
        max_pixels: Larger images are unreadable; None means Pillow's limit.

    Raises:
        ConfigError: If there is no such data set, or if it needs a root and has none.
        DataError: If no layout fits or its lists contradict each other.
    """
    return _verify(registry.find(name, root, split), progress, max_pixels)


def verify_dataset(
    dataset: Dataset, progress: Progress | None = None, max_pixels: int | None = None
) -> Verification:
    """Check the files of any data set."""
    return _verify(DatasetListing("class folders", "as listed", dataset), progress, max_pixels)


def _verify(
    listing: DatasetListing, progress: Progress | None, max_pixels: int | None
) -> Verification:
    dataset = listing.dataset
    missing, reasons, notes = _decode_all(dataset, progress, max_pixels)
    train_images = int((dataset.labels < dataset.train_classes).sum())
    spec = specs().get(dataset.name)
    published = spec.benchmark if spec else None
    return Verification(
        name=dataset.name,
        layout=listing.layout,
        root=dataset.root,
        classes=(dataset.train_classes, len(dataset.classes) - dataset.train_classes),
        images=(train_images, len(dataset) - train_images),
        expected_classes=published.classes if published else None,
        expected_images=published.images if published else None,
        missing=missing,
        unreadable=tuple(reasons),
        reasons=reasons,
        class_order=listing.order,
        fingerprint=_fingerprint(dataset),
        problems=(
            *(dataset.remarks if published else ()),  # deviations from the published data set
            *listing.problems,
            *_described("missing", missing),
            *_described("unreadable", tuple(reasons)),
        ),
        notes=(*(() if published else dataset.remarks), *role_checks.remarks(dataset), *notes),
        retrieval=retrieval_counts(dataset),
        expected_retrieval=published.retrieval if published else None,
    )


def _fingerprint(dataset: Dataset) -> str | None:
    try:
        return dataset.fingerprint
    except DataError:  # a missing or unreadable file, which is listed as such
        return None


def _described(what: str, files: Sequence[str]) -> Iterator[str]:
    if files:
        yield f"{len(files)} {what} images, first {files[0]}"


def _decode_all(
    dataset: Dataset, progress: Progress | None, max_pixels: int | None
) -> tuple[tuple[str, ...], dict[str, str], tuple[str, ...]]:
    """Decode every file; return the missing ones, reasons of the unreadable ones, and remarks."""
    missing = tuple(
        file for file in dataset.files if not boxes.file_of(dataset.root / file).exists()
    )
    is_missing = set(missing)
    files = [file for file in dataset.files if file not in is_missing]
    job = cache_build.DecodeJob(str(dataset.root), files, None, limit(max_pixels))
    findings = cache_build.check(job, cache_build.cores(), progress)
    reasons = sorted((findings.broken | findings.unreached).items())
    return missing, {files[row]: reason for row, reason in reasons}, findings.remarks(files)
