"""Your own images: a CSV file with the columns path, label and, if given, split, role, group."""

import csv
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import train_test
from dmlray.data.datasets.dataset_listing import DatasetListing, sound
from dmlray.data.datasets.spec import DatasetSpec
from dmlray.data.datasets.train_test import Keep, Split
from dmlray.data.datasets.written_paths import Fault, Finder, fault_of
from dmlray.data.roles import BOTH, ROLES, Roles, roles_of
from dmlray.errors import ConfigError, DataError
from dmlray.file_reading import read_bytes

LARGEST = 256 << 20  # bytes: millions of images
OTHER_SEPARATORS = (";", "\t", "|")
UNUSED = ("is_query", "is_gallery")  # columns of other libraries

Cells = tuple[int, list[str]]  # line number and its cells


@dataclass(frozen=True)
class CsvEntry:
    """One image of the file; `split` is as written, None if it is not read.

    `role` is one of ROLES; `group` is empty if the image shares it with no other.
    """

    line: int
    file: str
    label: str
    split: str | None
    role: str | None = None
    group: str | None = None
    fault: Fault | None = None


def load(
    root: Path | None, split: Split = "classes", keep: Keep = train_test.everything
) -> Dataset:
    """List the images named by the CSV file `root`; relative paths start in its folder.

    Raises:
        ConfigError: If there is no root.
        DataError: If the file is damaged, images are missing or contradict each other, or a test
            class has one image.
    """
    source, header, entries = _table(root, split)
    if missing := _missing(source, entries, lambda fault: True):
        raise DataError(missing)
    return sound(_found(source, header, entries, split, keep))


def find(root: Path | None, split: Split = "classes") -> DatasetListing:
    """List the images named by the CSV file `root`; `problems` has what forbids their use.

    Paths that are not files are left out: a pipe must not be opened.
    """
    source, header, entries = _table(root, split)
    listed = [entry for entry in entries if not entry.fault or entry.fault.gone]
    found = _found(source, header, listed, split, train_test.everything)
    unusable = _missing(source, entries, lambda fault: not fault.gone)
    return replace(found, problems=(*filter(None, [unusable]), *found.problems))


def _table(root: Path | None, split: Split) -> tuple[Path, list[str], list[CsvEntry]]:
    """Read the file: its path, header and entries, with the file names as on this disk."""
    if root is None:
        problem = "data set 'csv' needs a CSV file with the columns path and label. Set data.root."
        raise ConfigError("data.root", [problem])
    source = Path(os.path.expanduser(root)).absolute()
    header, entries = _read(source, split)
    return source, header, _on_disk(source, entries)


def _found(
    source: Path, header: Sequence[str], entries: Sequence[CsvEntry], split: Split, keep: Keep
) -> DatasetListing:
    listed = _dataset(source, entries, split)
    dataset = keep(train_test.all_train(listed) if split == "all" else listed)
    dataset = replace(dataset, remarks=(*_unused(header, split), *dataset.remarks))
    lines = {entry.file: entry.line for entry in entries}
    dataset, problems = train_test.examine(
        dataset, lambda row: f"{source}: line {lines[dataset.files[row]]} ({dataset.files[row]})"
    )
    return DatasetListing("csv file", "as listed", dataset, problems)


def _read(source: Path, split: Split) -> tuple[list[str], list[CsvEntry]]:
    rows = _rows(source)
    line, header = next(rows, (1, []))
    required = ("path", "label", "split")[: 3 if split == "given" else 2]
    matches = {column: _columns(header, column) for column in required}
    for column, indices in matches.items():
        if len(indices) != 1:
            other = next((mark for mark in OTHER_SEPARATORS if mark in "".join(header)), None)
            reason = f", {other!r} separates it" if other and len(header) == 1 else ""
            raise DataError(
                f"{source}: line {line}: {len(indices)} columns named {column!r}{reason}."
                f" Expected a header of {', '.join(required)}, comma-separated and each once."
            )
    matches |= _role_columns(source, line, header)
    columns = {column: indices[0] for column, indices in matches.items()}
    return header, [_entry(source, row, len(header), columns) for row in rows]


def _role_columns(source: Path, line: int, header: Sequence[str]) -> dict[str, list[int]]:
    """Find the columns of roles and groups, which a file may have."""
    matches = {column: _columns(header, column) for column in ("role", "group")}
    found = {column: indices for column, indices in matches.items() if indices}
    for column, indices in found.items():
        if len(indices) > 1:
            problem = f"{len(indices)} columns named {column!r}"
            raise DataError(f"{source}: line {line}: {problem}. Expected at most one.")
    if "group" in found and "role" not in found:
        raise DataError(
            f"{source}: line {line}: a column 'group' without a column 'role'. Expected both, or"
            " another name: a group says which images of a label a query is not compared with."
        )
    return found


def _columns(header: Sequence[str], column: str) -> list[int]:
    """Indices of a column: exact matches, else ignoring case."""
    exact = [at for at, name in enumerate(header) if name == column]
    return exact or [at for at, name in enumerate(header) if name.lower() == column]


def _entry(source: Path, row: Cells, width: int, columns: Mapping[str, int]) -> CsvEntry:
    line, cells = row
    if len(cells) != width:
        raise DataError(
            f"{source}: line {line}: {len(cells)} values for {width} columns."
            " Expected one each; put a value that holds a comma in double quotes."
        )
    values = {column: cells[at] for column, at in columns.items()}
    for column, value in values.items():
        if not value and column not in ("role", "group"):
            raise DataError(f"{source}: line {line}: {column} is empty. Expected a value.")
    split = values.get("split")
    if split is not None and train_test.side(split) is None:
        raise DataError(
            f"{source}: line {line}: split {split!r} is not allowed."
            " Allowed: train, test, validation."
        )
    role = _role(f"{source}: line {line}", values["role"], split) if "role" in values else None
    return CsvEntry(line, values["path"], values["label"], split, role, values.get("group"))


def _role(where: str, written: str, split: str | None) -> str:
    """Read a role in any case; a training image may have none, which means both."""
    role, trains = written.lower(), split is not None and train_test.side(split) == "train"
    if not role and trains:
        return BOTH
    if role not in ROLES:
        allowed = f"{', '.join(ROLES)}; empty where split is train"
        raise DataError(f"{where}: role {written!r} is not allowed. Allowed: {allowed}.")
    return role


def _unused(header: Sequence[str], split: Split) -> Iterator[str]:
    """Yield remarks on meaningful columns that are not used."""
    if split == "classes" and _columns(header, "split"):
        yield "the file's column split is not used; data.split=given uses it"
    unused = [name for role in UNUSED for name in header if name.lower() == role]
    if unused:
        yield f"the file's columns {', '.join(unused)} are not used; a column role is"


def _rows(source: Path) -> Iterator[Cells]:
    """Yield every line that is not blank, with stripped cells.

    Parsed line by line, because an open quote would extend over the following lines.
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
        content = read_bytes(source, LARGEST)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{source}: cannot be read: {reason}. Expected a CSV file.") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{source}: line {line}: not UTF-8. Save it as CSV in UTF-8.") from error


def _on_disk(source: Path, entries: Sequence[CsvEntry]) -> list[CsvEntry]:
    """Replace paths by the file names on this disk, or set the fault if there is none."""
    finder = Finder(source.parent)
    lines: dict[Path, int] = {}
    located = []
    for entry in entries:
        files = finder.find(entry.file)
        if len(files) > 1:
            raise DataError(
                f"{source}: line {entry.line}: {entry.file} may be {len(files)} files:"
                f" {', '.join(map(ascii, files))}. Expected a path in the Unicode form of one."
            )
        file = files[0] if files else os.path.normpath(entry.file)
        first = lines.setdefault(source.parent / file, entry.line)
        if first != entry.line:
            raise DataError(
                f"{source}: line {entry.line}: {file} is on line {first} already."
                " Expected each image once."
            )
        fault = None if files else fault_of(source.parent / file, entry.file)
        located.append(replace(entry, file=file, fault=fault))
    return located


def _missing(
    source: Path, entries: Sequence[CsvEntry], counts: Callable[[Fault], bool]
) -> str | None:
    """Describe the entries whose fault `counts`, in one sentence; None if there are none."""
    missing = [(entry, entry.fault) for entry in entries if entry.fault and counts(entry.fault)]
    if not missing:
        return None
    entry, fault = missing[0]
    reason = f" ({fault.reason})" if fault.reason else ""
    return (
        f"{source}: line {entry.line}: there is no file {source.parent / entry.file}{reason};"
        f" {len(missing)} of {len(entries)} are missing."
        " Expected paths that are absolute or relative to the folder of the CSV file."
    )


def _dataset(source: Path, entries: Sequence[CsvEntry], split: Split) -> Dataset:
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
            f"{source}: {len(train)} classes to train and {len(test)} to test."
            " Expected at least 1 of each."
        )
    dataset = train_test.join("csv", source.parent, train, test)
    return replace(dataset, remarks=tuple(remarks), roles=_roles(dataset.files, entries))


def _roles(files: Sequence[str], entries: Sequence[CsvEntry]) -> Roles | None:
    """Roles and groups of `files`; None if the file has no such columns."""
    by_file = {entry.file: entry for entry in entries}
    ordered = [by_file[file] for file in files]
    roles = [entry.role for entry in ordered if entry.role]
    groups = [entry.group for entry in ordered if entry.group is not None]
    return roles_of(roles, groups or None) if roles else None


def _images(entries: Sequence[CsvEntry], split: str | None = None) -> dict[str, list[str]]:
    """Class -> files, for one value of the column split if it is used."""
    images: dict[str, list[str]] = {}
    for entry in entries:
        if entry.split == split:
            images.setdefault(entry.label, []).append(entry.file)
    return images


SPEC = DatasetSpec(
    "csv",
    "Your own images: a CSV file with the columns path, label and, if given, split, role, group.",
    load,
    find,
    own_images=True,
)
