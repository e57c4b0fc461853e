"""Tables of images in Arrow's formats, which hold the paths of images or the images themselves."""

import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from dmlray.data.cache.image_copies import ImageCopies, StoredImage, copied
from dmlray.data.datasets.table_columns import OPTIONAL, UNUSED, ImageTable, columns
from dmlray.errors import DataError
from dmlray.file_reading import open_regular, parse_json, reason

BATCH = 64  # rows in memory at once, with their images
IMAGE, PATH, LABEL, SPLIT = "image", "path", "label", "split"

Row = tuple[str | None, str, str, dict[str, Any]]  # split, location, name of its image, values


@dataclass(frozen=True)
class ArrowFile:
    """A parquet file, or else an Arrow stream; `split` names the part that it belongs to."""

    path: Path
    split: str | None = None

    def schema(self) -> pa.Schema:
        """Read names and types of the columns."""
        with self._opened() as table:
            return table.schema_arrow if self._is_parquet else table.schema

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the rows as Python values."""
        with self._opened() as table:
            batches = table.iter_batches(BATCH, columns=columns) if self._is_parquet else table
            for batch in batches:
                for start in range(0, len(batch), BATCH):
                    yield from batch.select(columns).slice(start, BATCH).to_pylist()

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            open_regular(self.path).close()  # mapping a pipe would block
            with pa.memory_map(str(self.path)) as file:
                open_table = pyarrow.parquet.ParquetFile if self._is_parquet else pa.ipc.open_stream
                yield open_table(file)
        except pa.ArrowException as error:
            why = str(error).splitlines()[0].rstrip(".")
            raise DataError(f"{self.path}: is no table or is damaged ({why}).") from None
        except OSError as error:
            raise DataError(f"{self.path}: {reason(error)}.") from None
        except (ValueError, OverflowError) as error:  # no Python value: bad UTF-8, the year 300,000
            raise DataError(f"{self.path}: a value cannot be read ({error}).") from None

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() == ".parquet"


def read(kind: str, source: Path, folder: Path, files: Sequence[ArrowFile]) -> ImageTable:
    """Read the parts of a table as text; images inside of it become files of the cache.

    Args:
        kind: Name of the data set.
        source: File or folder that the user gave.
        folder: Where relative paths start.
        files: Parts of the table, with the same columns.

    Raises:
        DataError: If a file is no table, or none or several of its columns may be image or label.
    """
    schema = _schema(source, files)
    image, label = _image(source, schema), _label(source, schema)
    others = [name for name in schema.names if name.lower() in (SPLIT, *OPTIONAL, *UNUSED)]
    path = PATH if image else _named(schema, PATH) or PATH
    _check_texts(source, schema, [label, *others, *([] if image else [path])])
    copies = _copies(kind, source, folder, files, image) if image else None
    by_folder = files[0].split is not None and SPLIT not in map(str.lower, others)
    header = [path, label, *others, *([SPLIT] if by_folder else [])]
    classes = _class_names(schema).get(label)

    def rows() -> Iterator[tuple[str, list[str]]]:
        stored = [name for name in header if name in schema.names and not (image and name == PATH)]
        for split, place, name, values in _numbered(files, stored):
            if by_folder:
                values[SPLIT] = split
            if copies:
                values[PATH] = copies.path(name)
            if classes:
                values[label] = _class_name(classes, values[label])
            yield place, [_text(values[column]) for column in header]

    header_read = [PATH, LABEL, *header[2:]]
    return ImageTable(source, copies.folder if copies else folder, "columns", header_read, rows())


def _schema(source: Path, files: Sequence[ArrowFile]) -> pa.Schema:
    """The columns of all files, which must be the same."""
    first = files[0].schema()
    for name, count in Counter(first.names).items():
        if count > 1:
            raise DataError(f"{source}: {count} columns named {name!r}. Expected each once.")
    for file in files[1:]:
        if file.schema().names != first.names:
            problem = f"its columns are not those of {files[0].path.name}"
            raise DataError(f"{file.path}: {problem}. Expected the parts of one table.")
    return first


def _image(source: Path, schema: pa.Schema) -> str | None:
    """The column of images: `image`, else without a column `path` the only one; None for paths."""
    found: list[str] = [field.name for field in schema if _holds_images(field.type)]
    if (image := _named(schema, IMAGE)) in found:
        return image
    if _named(schema, PATH):
        return None
    if len(found) != 1:
        problem = f"{len(found)} columns of images and none named {PATH!r}"
        raise DataError(
            f"{source}: {problem} among {', '.join(schema.names)}. Expected a column {PATH!r}, or"
            f" one of images (bytes), named {IMAGE!r} if there are several."
        )
    return found[0]


def _named(schema: pa.Schema, column: str) -> str | None:
    """The name of a column in the file, whose case counts only where there are several."""
    found = columns(schema.names, column)
    return schema.names[found[0]] if len(found) == 1 else None


def _holds_images(kind: pa.DataType) -> bool:
    """Whether a column has bytes, or as `datasets` stores images, a structure of bytes and path."""
    if pa.types.is_struct(kind):
        fields = {field.name: field.type for field in kind}
        path = fields.get("path", pa.string())
        is_path = pa.types.is_null(path) or _is_any(path, "string", "large_string", "string_view")
        return "bytes" in fields and _holds_images(fields["bytes"]) and is_path
    return _is_any(kind, "binary", "large_binary", "binary_view")


def _is_any(kind: pa.DataType, *names: str) -> bool:
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def _label(source: Path, schema: pa.Schema) -> str:
    """The column of labels: `label`, else the only ClassLabel of `datasets`."""
    if label := _named(schema, LABEL):
        return label
    found = list(_class_names(schema))
    if len(found) != 1:
        problem = f"no column named {LABEL!r} and {len(found)} of type ClassLabel"
        listed = ", ".join(found or schema.names)
        raise DataError(f"{source}: {problem} among {listed}. Rename the right one to {LABEL!r}.")
    return found[0]


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Column of whole numbers -> names of these classes, as `datasets` writes them into a table."""
    try:
        written = parse_json((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = written.get("info", {}).get("features", {})
        return {
            field.name: list(map(str, features[field.name]["names"]))
            for field in schema
            if pa.types.is_integer(field.type)
            and features.get(field.name, {}).get("_type") == "ClassLabel"
        }
    except (ValueError, AttributeError, KeyError, TypeError):  # not as `datasets` writes it
        return {}


def _check_texts(source: Path, schema: pa.Schema, texts: Sequence[str]) -> None:
    for name in texts:
        kind = schema.field(name).type
        if pa.types.is_nested(kind) or _holds_images(kind):
            problem = f"column {name!r} holds {kind}"
            raise DataError(f"{source}: {problem}. Expected text or numbers.")


def _copies(
    kind: str, source: Path, folder: Path, files: Sequence[ArrowFile], image: str
) -> ImageCopies:
    def images() -> Iterator[StoredImage]:
        for _, _, name, values in _numbered(files, [image]):
            value = values[image]
            stored = value if isinstance(value, dict) else {"bytes": value}
            path = stored.get("path") or ""
            yield StoredImage(name, stored["bytes"], path and os.path.join(folder, path))

    return copied(kind, source, [file.path for file in files], images)


def _numbered(files: Sequence[ArrowFile], columns: Sequence[str]) -> Iterator[Row]:
    """Yield all rows; they count from 1 in each split."""
    counts: Counter[str | None] = Counter()
    for file in files:
        for values in file.rows(columns):
            counts[file.split] += 1
            number = counts[file.split]
            if file.split:
                yield file.split, f"{file.split} row {number}", f"{file.split}-{number:07}", values
            else:
                yield None, f"row {number}", f"{number:07}", values


def _class_name(names: Sequence[str], number: Any) -> str:
    """The name of a class number; empty for -1 and null, which mean no label."""
    if number is None or number == -1:
        return ""
    return names[number] if 0 <= number < len(names) else str(number)


def _text(value: Any) -> str:
    """A value as a CSV file would have it: empty for null, 3 for 3.0."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()
