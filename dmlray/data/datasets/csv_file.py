"""Your own images: a CSV file with the columns path and label."""

import csv
import io
import os
from collections.abc import Iterator
from pathlib import Path

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import image_table, train_test
from dmlray.data.datasets.dataset_listing import DatasetListing
from dmlray.data.datasets.spec import DatasetSpec
from dmlray.data.datasets.table_columns import ImageTable
from dmlray.data.datasets.train_test import Keep, Split
from dmlray.errors import ConfigError, DataError
from dmlray.file_reading import read_bytes

LARGEST = 256 << 20  # bytes: millions of images

Cells = tuple[str, list[str]]  # line of the file and its cells


def load(
    root: Path | None, split: Split = "classes", keep: Keep = train_test.everything
) -> Dataset:
    """List the images named by the CSV file `root`; relative paths start in its folder.

    Raises:
        ConfigError: If there is no root.
        DataError: As `image_table.load` does.
    """
    return image_table.load("csv", _read(root), split, keep)


def find(root: Path | None, split: Split = "classes") -> DatasetListing:
    """List the images named by the CSV file `root`; `problems` has what forbids their use."""
    return image_table.find("csv", _read(root), split)


def _read(root: Path | None) -> ImageTable:
    if root is None:
        problem = "data set 'csv' needs a CSV file with the columns path and label. Set data.root."
        raise ConfigError("data.root", [problem])
    source = Path(os.path.expanduser(root)).absolute()
    rows = _rows(source)
    line, header = next(rows, ("line 1", []))
    return ImageTable(source, source.parent, line, header, rows)


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
            yield f"line {line}", cells


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


SPEC = DatasetSpec(
    "csv",
    "Your own images: a CSV file with the columns path and label, and others (docs/data.md).",
    load,
    find,
    own_images=True,
)
