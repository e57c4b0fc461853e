"""Images outside of a data set: a folder, a table of paths, or some files -> one Arrow table."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from dmlray.data import boxes
from dmlray.data.cache import formats
from dmlray.data.datasets.listing import SYSTEM
from dmlray.errors import DataError
from dmlray.file_reading import open_regular, reason
from dmlray.local_paths import path_of

PATH, LABEL = "path", "label"
TABLES = (".csv", ".parquet")


Sources = str | Path | Sequence[str | Path] | np.ndarray


def list_images(sources: Sources) -> pa.Table:
    """List images with the column `path`, absolute, and what else a table of paths has.

    Args:
        sources: A folder, which is walked down and gives the first sub-folder as `label`; a CSV or
            parquet file with the column `path`, relative to its own folder, and perhaps boxes
            (`x1`, `y1`, `x2`, `y2`, see `dmlray.data.boxes`); or image files.

    Raises:
        ConfigError: If a source is no path.
        DataError: If there is none, or a source cannot be read.
    """
    given = [sources] if isinstance(sources, str | Path) else sources
    paths = [path_of("images", source) for source in given]
    if len(paths) == 1 and paths[0].is_dir():
        table = _from_folder(paths[0])
    elif len(paths) == 1 and paths[0].suffix.lower() in TABLES:
        table = _from_table(paths[0])
    else:
        table = _from_files(paths)
    if not len(table):
        named = ", ".join(map(str, paths[:3])) or "images"
        raise DataError(f"{named}: no images. Allowed: a folder, a table of paths, or files")
    return table


def _from_folder(root: Path) -> pa.Table:
    files = sorted(_walk(root))
    columns = {PATH: [str((root / file).absolute()) for file in files]}
    if any("/" in file for file in files):
        columns[LABEL] = [file.partition("/")[0] if "/" in file else "" for file in files]
    return _texts(columns)


def _texts(columns: Mapping[str, Sequence[str]]) -> pa.Table:
    try:
        return pa.table(dict(columns), pa.schema([(name, pa.string()) for name in columns]))
    except (UnicodeEncodeError, pa.ArrowException):
        strange = Path(next(path for path in columns[PATH] if not _is_unicode(path)))
        raise DataError(
            f"{strange.parent}: {strange.name!a} is no name in UTF-8. Rename it"
        ) from None


def _walk(root: Path) -> Iterator[str]:
    """Image files below `root`, relative to it, but for hidden ones and folders of systems."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be listed: {error.strerror}") from None

    for folder, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [n for n in folders if not n.startswith(".") and n not in SYSTEM]
        for name in files:
            if not name.startswith(".") and _is_image(os.path.join(folder, name)):
                yield os.path.relpath(os.path.join(folder, name), root)


def _is_image(path: str) -> bool:
    suffix = formats.suffix(os.path.basename(path))
    if suffix:
        return suffix in formats.SUFFIXES
    try:
        with open_regular(Path(path)) as file:
            return formats.is_raster(file.read(formats.HEAD))
    except OSError:
        return False


def _from_files(sources: Sequence[Path]) -> pa.Table:
    for source in sources:
        if not source.is_file():
            raise DataError(f"{source}: is no file. Allowed: one folder, one table, or image files")
    return _texts({PATH: [str(source.absolute()) for source in sources]})


def _from_table(source: Path) -> pa.Table:
    try:
        open_regular(source).close()
        table = _read_csv(source) if source.suffix.lower() == ".csv" else _read_parquet(source)
        names = table.column_names
        _check_values(table)
    except OSError as error:
        raise DataError(f"{source}: {reason(error)}") from None
    except (pa.ArrowException, ValueError, OverflowError) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{source}: is no table or is damaged ({why})") from None
    for name, count in {PATH: 0, **Counter(names)}.items():
        if count != 1:
            problem = f"{count} columns named {name!r} among {', '.join(names)}"
            raise DataError(f"{source}: {problem}. Allowed: one")
    paths = table[PATH].to_pylist()
    for row, path in enumerate(paths, start=1):
        if not isinstance(path, str) or not path:
            raise DataError(f"{source}: row {row}: {path!r} is no path")
    absolute = [os.path.join(source.parent.absolute(), path) for path in paths]
    if found := [name for name in boxes.COLUMNS if name in names]:
        absolute = _with_boxes(source, absolute, table.select(found))
    return table.set_column(names.index(PATH), PATH, pa.array(absolute, pa.string()))


def _check_values(table: pa.Table) -> None:
    """Raise if a value has no form in Python: bytes that are no UTF-8, the year 300,000."""
    table.validate(full=True)
    for column in table.columns:
        if pa.types.is_temporal(column.type) or pa.types.is_nested(column.type):
            column.to_pylist()


def _with_boxes(source: Path, paths: Sequence[str], written: pa.Table) -> list[str]:
    """Paths of the boxes that the rows of a table have."""
    if len(written.column_names) < len(boxes.COLUMNS):
        problem = f"columns {', '.join(written.column_names)} of a box without the others"
        raise DataError(f"{source}: {problem}. Allowed: all of {', '.join(boxes.COLUMNS)}, or none")
    named = []
    for row, (path, values) in enumerate(zip(paths, written.to_pylist(), strict=True), start=1):
        texts = {name: "" if value is None else str(value) for name, value in values.items()}
        try:
            named.append(boxes.named(path, boxes.parse(texts)))
        except ValueError as error:
            raise DataError(f"{source}: row {row}: {error}") from None
    return named


def _read_csv(source: Path) -> pa.Table:
    """All columns as text: a label 007 is not 7."""
    parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
    with pyarrow.csv.open_csv(source, parse_options=parse) as head:
        texts = {name: pa.string() for name in head.schema.names}
    convert = pyarrow.csv.ConvertOptions(column_types=texts, strings_can_be_null=False)
    return pyarrow.csv.read_csv(source, parse_options=parse, convert_options=convert)


def _read_parquet(source: Path) -> pa.Table:
    return pyarrow.parquet.ParquetFile(source).read()


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
