"""A listed data set with the problems that forbid its use."""

import os
from dataclasses import dataclass
from pathlib import Path

from dmlray.data.dataset import Dataset
from dmlray.errors import DataError


@dataclass(frozen=True)
class DatasetListing:
    """A listed data set, its files not opened; `order` describes the order of the classes.

    `problems` are sentences on what forbids its use, except missing files.
    """

    layout: str
    order: str
    dataset: Dataset
    problems: tuple[str, ...] = ()


def complete(listing: DatasetListing) -> Dataset:
    """Return the data set after checking that all its files exist.

    Raises:
        DataError: If it has problems, or files are missing; names the first and counts them.
    """
    return sound(listing, *_missing(listing.dataset))


def sound(listing: DatasetListing, *problems: str) -> Dataset:
    """Return the data set after checking for problems, its own and `problems`.

    Raises:
        DataError: If there are problems.
    """
    if listing.problems or problems:
        raise DataError(" ".join([*listing.problems, *problems]))
    return listing.dataset


def _missing(dataset: Dataset) -> list[str]:
    """Describe missing files, if any, in one sentence."""
    names = {parent: _names(dataset.root / parent) for parent in set(map(_parent, dataset.files))}
    missing = [file for file in dataset.files if Path(file).name not in names[_parent(file)]]
    if not missing:
        return []
    kind = " (a broken link)" if os.path.islink(dataset.root / missing[0]) else ""
    return [
        f"{dataset.root}: {len(missing)} of {len(dataset)} listed images are missing,"
        f" first {missing[0]}{kind}."
    ]


def _parent(file: str) -> str:
    return file.rpartition("/")[0]


def _names(folder: Path) -> set[str]:
    """Names in a folder, without broken links."""
    try:
        with os.scandir(folder) as entries:
            present = (e for e in entries if not e.is_symlink() or os.path.exists(e.path))
            return {entry.name for entry in present}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}.") from error
