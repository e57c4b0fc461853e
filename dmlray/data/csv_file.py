"""Anybody's own images: a CSV file with the columns path, label and, if given, split."""

import csv
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dmlray.data import sides
from dmlray.data.dataset import Dataset
from dmlray.data.sides import Split
from dmlray.errors import ConfigError, DataError

Cells = tuple[int, list[str]]  # the number of a line and what stands on it


@dataclass(frozen=True)
class Entry:
    """One image of the file; `side` is train or test, and None where no split is asked for."""

    line: int
    file: str
    label: str
    side: str | None


def load(root: Path | None, split: Split = "classes") -> Dataset:
    """List the images named by the CSV file `root`; relative paths start in its folder.

    Raises:
        ConfigError: If there is no root.
        DataError: If the file is damaged, or images are missing, alone or contradict each other.
    """
    if root is None:
        problem = "data set 'csv' needs a CSV file with the columns path and label. Set data.root."
        raise ConfigError("data.root", [problem])
    source = root.expanduser().absolute()
    header, entries = _read(source, split)
    _check_paths(source, entries)
    dataset = _dataset(source, entries, split)
    if split == "classes" and "split" in header:
        dataset = replace(dataset, remarks=("the file's column split is not used",))
    lines = {entry.file: entry.line for entry in entries}
    return sides.checked(
        dataset, lambda row: f"{source}: line {lines[dataset.files[row]]} ({dataset.files[row]})"
    )


def _read(source: Path, split: Split) -> tuple[list[str], list[Entry]]:
    rows = _rows(source)
    line, header = next(rows, (1, []))
    wanted = ("path", "label", "split")[: 3 if split == "given" else 2]
    for column in wanted:
        if header.count(column) != 1:
            raise DataError(
                f"{source}: line {line}: {header.count(column)} columns named {column!r}."
                f" Expected a header of {', '.join(wanted)}, comma-separated and each once."
            )
    return header, [_entry(source, row, header, wanted) for row in rows]


def _entry(source: Path, row: Cells, header: Sequence[str], wanted: Sequence[str]) -> Entry:
    line, cells = row
    if len(cells) != len(header):
        raise DataError(
            f"{source}: line {line}: {len(cells)} values for {len(header)} columns."
            " Expected one each; a value that holds a comma stands in double quotes."
        )
    values = {column: cells[header.index(column)] for column in wanted}
    for column, value in values.items():
        if not value:
            raise DataError(f"{source}: line {line}: {column} is empty. Expected a value.")
    side = values.get("split")
    if side not in (None, "train", "test"):
        raise DataError(
            f"{source}: line {line}: split {side!r} is not allowed. Allowed: train, test;"
            " validation folds are cut from train."
        )
    return Entry(line, os.path.normpath(values["path"]), values["label"], side)


def _rows(source: Path) -> Iterator[Cells]:
    """Give every line that is not blank, its cells stripped.

    Line by line, because an open quote would swallow the lines after it.
    """
    for line, text in enumerate(io.StringIO(_text(source), newline=None), start=1):
        if text.count('"') % 2:
            raise DataError(
                f'{source}: line {line}: a quote is open. Expected an even number of ".'
            )
        try:
            cells = [cell.strip() for cell in next(csv.reader([text], skipinitialspace=True))]
        except csv.Error as error:
            raise DataError(
                f"{source}: line {line}: {error}. Expected values and commas."
            ) from error
        if any(cells):
            yield line, cells


def _text(source: Path) -> str:
    try:
        content = source.read_bytes()
    except OSError as error:
        problem = f"cannot be read: {error.strerror}. Expected a CSV file."
        raise DataError(f"{source}: {problem}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{source}: line {line}: not UTF-8. Save it as CSV in UTF-8.") from error


def _check_paths(source: Path, entries: Sequence[Entry]) -> None:
    lines: dict[Path, int] = {}
    for entry in entries:
        first = lines.setdefault(source.parent / entry.file, entry.line)
        if first != entry.line:
            raise DataError(
                f"{source}: line {entry.line}: {entry.file} is on line {first} already."
                " Expected each image once."
            )
    missing = [entry for entry in entries if not os.path.isfile(source.parent / entry.file)]
    if missing:
        raise DataError(
            f"{source}: line {missing[0].line}: there is no file {source.parent / missing[0].file};"
            f" {len(missing)} of {len(entries)} are missing."
            " Expected paths that are absolute or relative to the folder of the CSV file."
        )


def _dataset(source: Path, entries: Sequence[Entry], split: Split) -> Dataset:
    if split == "classes":
        train, test = sides.halves(_images(entries, None))
    else:
        train, test = (_images(entries, side) for side in ("train", "test"))
    if not (train and test):
        raise DataError(
            f"{source}: {len(train)} classes to train and {len(test)} to test."
            " Expected at least 1 of each."
        )
    return sides.join("csv", source.parent, train, test)


def _images(entries: Sequence[Entry], side: str | None) -> dict[str, list[str]]:
    """Class -> files of one side."""
    images: dict[str, list[str]] = {}
    for entry in entries:
        if entry.side == side:
            images.setdefault(entry.label, []).append(entry.file)
    return images
