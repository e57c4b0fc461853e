"""Read the columns of a table of images: path and label, and what a table may have beside them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dmlray.data import boxes
from dmlray.data.boxes import Box
from dmlray.data.datasets import train_test
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.written_paths import Fault
from dmlray.data.roles import BOTH, ROLES
from dmlray.errors import DataError

OPTIONAL = ("role", "group", "category", *boxes.COLUMNS)
UNUSED = ("is_query", "is_gallery")  # columns of other libraries
OTHER_SEPARATORS = (";", "\t", "|")


@dataclass(frozen=True)
class ImageTable:
    """A table of images as text; `source` is its file, `folder` where relative paths start.

    `head` and the first of each of `rows` are locations for messages, such as "line 5".
    """

    source: Path
    folder: Path
    head: str
    header: Sequence[str]
    rows: Iterable[tuple[str, Sequence[str]]]


@dataclass(frozen=True)
class TableEntry:
    """One image of the table; `split` is as written, None if it is not read.

    `role` is one of ROLES; `group` is empty if the image shares it with no other. A `file` may
    name a box, see `dmlray.data.boxes`.
    """

    place: str
    file: str
    label: str
    split: str | None
    role: str | None = None
    group: str | None = None
    category: str | None = None
    box: Box | None = None
    fault: Fault | None = None


def read(table: ImageTable, split: Split) -> list[TableEntry]:
    """Read all rows of a table.

    Raises:
        DataError: If a column is missing or a value is not allowed; names its row.
    """
    where = f"{table.source}: {table.head}"
    required = ("path", "label", "split")[: 3 if split == "given" else 2]
    matches = {column: columns(table.header, column) for column in (*required, *OPTIONAL)}
    for column in required:
        if len(matches[column]) != 1:
            raise DataError(f"{where}: {_not_one(table.header, column, required)}")
    found = {column: indices for column, indices in matches.items() if indices}
    _check_optional(where, found)
    places = {column: indices[0] for column, indices in found.items()}
    sides = columns(table.header, "split")  # also where it is not read
    return [
        _entry(f"{table.source}: {place}", place, cells, len(table.header), places, sides)
        for place, cells in table.rows
    ]


def columns(header: Sequence[str], column: str) -> list[int]:
    """Indices of a column: exact matches, else ignoring case."""
    exact = [at for at, name in enumerate(header) if name == column]
    return exact or [at for at, name in enumerate(header) if name.lower() == column]


def unused(header: Sequence[str], split: Split) -> Iterator[str]:
    """Yield remarks on meaningful columns that are not used."""
    if split == "classes" and columns(header, "split"):
        yield "the file's column split is not used; data.split=given uses it"
    names = [name for other in UNUSED for name in header if name.lower() == other]
    if names:
        yield f"the file's columns {', '.join(names)} are not used; a column role is"


def _not_one(header: Sequence[str], column: str, required: Sequence[str]) -> str:
    other = next((mark for mark in OTHER_SEPARATORS if mark in "".join(header)), None)
    reason = f", {other!r} separates it" if other and len(header) == 1 else ""
    return (
        f"{len(columns(header, column))} columns named {column!r}{reason}."
        f" Expected a header of {', '.join(required)}, comma-separated and each once."
    )


def _check_optional(where: str, found: Mapping[str, Sequence[int]]) -> None:
    """Check that columns are not there twice, nor without those that they need."""
    for column, indices in found.items():
        if len(indices) > 1:
            problem = f"{len(indices)} columns named {column!r}"
            raise DataError(f"{where}: {problem}. Expected at most one.")
    if "group" in found and "role" not in found:
        raise DataError(
            f"{where}: a column 'group' without a column 'role'. Expected both, or"
            " another name: a group says which images of a label a query is not compared with."
        )
    lacking = [column for column in boxes.COLUMNS if column not in found]
    if 0 < len(lacking) < len(boxes.COLUMNS):
        problem = f"columns of a box without {', '.join(lacking)}"
        raise DataError(f"{where}: {problem}. Expected all of {', '.join(boxes.COLUMNS)}, or none.")


def _entry(
    where: str, place: str, cells: Sequence[str], width: int, at: Mapping[str, int],
    sides: Sequence[int],
) -> TableEntry:  # fmt: skip
    if len(cells) != width:
        raise DataError(
            f"{where}: {len(cells)} values for {width} columns."
            " Expected one each; put a value that holds a comma in double quotes."
        )
    values = {column: cells[index] for column, index in at.items()}
    for column, value in values.items():
        if not value and column not in OPTIONAL:
            raise DataError(f"{where}: {column} is empty. Expected a value.")
    split = values.get("split")
    if split is not None and train_test.side(split) is None:
        raise DataError(
            f"{where}: split {split!r} is not allowed. Allowed: train, test, validation."
        )
    return TableEntry(
        place,
        values["path"],
        values["label"],
        split,
        _role(where, values["role"], [cells[n] for n in sides]) if "role" in values else None,
        values.get("group"),
        values.get("category"),
        _box(where, values) if boxes.COLUMNS[0] in values else None,
    )


def _role(where: str, written: str, sides: Sequence[str]) -> str:
    """Read a role in any case; a training image may have none, which means both."""
    role = written.lower()
    if not role and [train_test.side(split) for split in sides] == ["train"]:
        return BOTH
    if role not in ROLES:
        allowed = f"{', '.join(ROLES)}; empty where split is train"
        raise DataError(f"{where}: role {written!r} is not allowed. Allowed: {allowed}.")
    return role


def _box(where: str, values: Mapping[str, str]) -> Box | None:
    try:
        return boxes.parse(values)
    except ValueError as error:
        raise DataError(f"{where}: {error}.") from None
