"""A data set as it was listed, before it is known whether it can be used."""

import os
from dataclasses import dataclass
from pathlib import Path

from dmlray.data.dataset import Dataset
from dmlray.errors import DataError


@dataclass(frozen=True)
class Found:
    """A listed data set, its files not opened; `order` says what orders the classes.

    `problems` are sentences on what forbids its use, but for missing files.
    """

    layout: str
    order: str
    dataset: Dataset
    problems: tuple[str, ...] = ()


def complete(found: Found) -> Dataset:
    """Give the data set, all of whose files are there.

    Raises:
        DataError: If it has problems, or files are missing; names the first and counts them.
    """
    return sound(found, *_missing(found.dataset))


def sound(found: Found, *problems: str) -> Dataset:
    """Give the data set if nothing forbids its use.

    Raises:
        DataError: If it has problems, or there are more.
    """
    if found.problems or problems:
        raise DataError(" ".join([*found.problems, *problems]))
    return found.dataset


def _missing(dataset: Dataset) -> list[str]:
    """A sentence on files that are not there, if there are any."""
    names = {parent: _names(dataset.root / parent) for parent in set(map(_parent, dataset.files))}
    missing = [file for file in dataset.files if Path(file).name not in names[_parent(file)]]
    if not missing:
        return []
    kind = " (a link to nothing)" if os.path.islink(dataset.root / missing[0]) else ""
    return [
        f"{dataset.root}: {len(missing)} of {len(dataset)} listed images are missing,"
        f" first {missing[0]}{kind}."
    ]


def _parent(file: str) -> str:
    return file.rpartition("/")[0]


def _names(folder: Path) -> set[str]:
    """Names in a folder, without links to nothing."""
    try:
        with os.scandir(folder) as entries:
            there = (e for e in entries if not e.is_symlink() or os.path.exists(e.path))
            return {entry.name for entry in there}
    except (FileNotFoundError, NotADirectoryError):
        return set()
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}.") from error
