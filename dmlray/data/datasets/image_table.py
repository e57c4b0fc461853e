"""Data sets from tables of images: find their files, check their boxes, split their classes."""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from dmlray.data import boxes
from dmlray.data.cache.decode import UnreadableImageError, decoded_size
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import table_columns, train_test
from dmlray.data.datasets.dataset_listing import DatasetListing, sound
from dmlray.data.datasets.table_columns import ImageTable, TableEntry
from dmlray.data.datasets.train_test import Keep, Split
from dmlray.data.datasets.written_paths import Fault, Finder, fault_of
from dmlray.data.roles import Roles, roles_of
from dmlray.errors import DataError


def load(name: str, table: ImageTable, split: Split, keep: Keep) -> Dataset:
    """List the images of a table as the data set `name`.

    Raises:
        DataError: If the table is damaged, images are missing or contradict each other, a box is
            not inside of its image, or a test class has one image.
    """
    entries = _on_disk(table, table_columns.read(table, split))
    if missing := _missing(table, entries, lambda fault: True):
        raise DataError(missing)
    return sound(_found(name, table, entries, split, keep))


def find(name: str, table: ImageTable, split: Split) -> DatasetListing:
    """List the images of a table; `problems` has what forbids their use.

    Paths that are not files are left out: a pipe must not be opened.
    """
    entries = _on_disk(table, table_columns.read(table, split))
    listed = [entry for entry in entries if not entry.fault or entry.fault.gone]
    found = _found(name, table, listed, split, train_test.everything)
    unusable = _missing(table, entries, lambda fault: not fault.gone)
    return replace(found, problems=(*filter(None, [unusable]), *found.problems))


def _found(
    name: str, table: ImageTable, entries: Sequence[TableEntry], split: Split, keep: Keep
) -> DatasetListing:
    listed = _dataset(name, table, entries, split)
    dataset = keep(train_test.all_train(listed) if split == "all" else listed)
    unused = table_columns.unused(table.header, split)
    dataset = replace(dataset, remarks=(*unused, *dataset.remarks))
    places = {entry.file: entry.place for entry in entries}
    dataset, problems = train_test.examine(
        dataset,
        lambda row: f"{table.source}: {places[dataset.files[row]]} ({dataset.files[row]})",
    )
    outside = _outside(table, entries)
    layout = f"{name} file" if table.source.is_file() else f"{name} folder"
    return DatasetListing(layout, "as listed", dataset, (*filter(None, [outside]), *problems))


def _on_disk(table: ImageTable, entries: Sequence[TableEntry]) -> list[TableEntry]:
    """Replace paths by the file names on this disk, or set the fault if there is none."""
    finder = Finder(table.folder)
    seen: dict[Path, str] = {}
    located = []
    for entry in entries:
        files = finder.find(entry.file)
        if len(files) > 1:
            raise DataError(
                f"{table.source}: {entry.place}: {entry.file} may be {len(files)} files:"
                f" {', '.join(map(ascii, files))}. Expected a path in the Unicode form of one."
            )
        file = files[0] if files else os.path.normpath(entry.file)
        item = boxes.named(file, entry.box)
        first = seen.setdefault(table.folder / item, entry.place)
        if first != entry.place:
            expected = "each box once" if entry.box else "each image once"
            problem = f"{item} is on {first} already"
            raise DataError(f"{table.source}: {entry.place}: {problem}. Expected {expected}.")
        fault = None if files else fault_of(table.folder / file, entry.file)
        located.append(replace(entry, file=item, fault=fault))
    return located


def _missing(
    table: ImageTable, entries: Sequence[TableEntry], counts: Callable[[Fault], bool]
) -> str | None:
    """Describe the entries whose fault `counts`, in one sentence; None if there are none."""
    missing = [(entry, entry.fault) for entry in entries if entry.fault and counts(entry.fault)]
    if not missing:
        return None
    entry, fault = missing[0]
    reason = f" ({fault.reason})" if fault.reason else ""
    path = boxes.file_of(table.folder / entry.file)
    return (
        f"{table.source}: {entry.place}: there is no file {path}{reason};"
        f" {len(missing)} of {len(entries)} are missing."
        f" Expected paths that are absolute or relative to the folder of {table.source.name}."
    )


def _outside(table: ImageTable, entries: Sequence[TableEntry]) -> str | None:
    """Describe the boxes that are not inside of their images, in one sentence."""
    sizes: dict[Path, tuple[int, int]] = {}
    problems = []
    for entry in entries:
        path = boxes.file_of(table.folder / entry.file)
        if entry.box is None or entry.fault:
            continue
        with suppress(UnreadableImageError):  # reported when it is decoded
            sizes[path] = sizes.get(path) or decoded_size(path, None, sys.maxsize)
            if problem := entry.box.problem(*sizes[path]):
                problems.append(f"{entry.place}: {problem} {path}")
    if not problems:
        return None
    expected = "Expected x2 and y2 up to the width and height of the upright image"
    return f"{table.source}: {problems[0]}. {expected}; {len(problems)} boxes are not."


def _dataset(name: str, table: ImageTable, entries: Sequence[TableEntry], split: Split) -> Dataset:
    remarks: list[str] = []
    if split != "given":
        train, test = train_test.halves(_images(entries))
    else:
        values = dict.fromkeys(str(entry.split) for entry in entries)
        train, test, remarks = train_test.assign(
            {value: _images(entries, value) for value in values}, "split {!r}"
        )
    if not (train and test):
        raise DataError(
            f"{table.source}: {len(train)} classes to train and {len(test)} to test."
            " Expected at least 1 of each."
        )
    dataset = train_test.join(name, table.folder, train, test)
    by_file = {entry.file: entry for entry in entries}
    ordered = [by_file[file] for file in dataset.files]
    return replace(
        dataset, remarks=tuple(remarks), roles=_roles(ordered), categories=_categories(ordered)
    )


def _roles(entries: Sequence[TableEntry]) -> Roles | None:
    """Roles and groups; None if the table has no such columns."""
    roles = [entry.role for entry in entries if entry.role]
    groups = [entry.group for entry in entries if entry.group is not None]
    return roles_of(roles, groups or None) if roles else None


def _categories(entries: Sequence[TableEntry]) -> np.ndarray | None:
    found = [entry.category for entry in entries if entry.category is not None]
    return np.array(found) if found else None


def _images(entries: Sequence[TableEntry], split: str | None = None) -> dict[str, list[str]]:
    """Class -> files, for one value of the column split if it is used."""
    images: dict[str, list[str]] = {}
    for entry in entries:
        if entry.split == split:
            images.setdefault(entry.label, []).append(entry.file)
    return images
