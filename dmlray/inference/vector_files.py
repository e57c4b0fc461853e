"""A folder of vectors: parquet shards, `vectors.json` that describes them, `failed.csv`.

`images.parquet` lists the images with one row group for each shard.

A shard covers a fixed range of the listed images and is written whole or not at all, so that what
is there need not be made again. Images that could not be read are in its metadata.
"""

import csv
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet
from pydantic import Field, TypeAdapter

from dmlray.atomic_files import whole_file, write_json, write_text
from dmlray.errors import ConfigError, DataError
from dmlray.file_reading import read_json, reason
from dmlray.json_schema import FromOne, FromZero, Sha256, Text, checked

ABOUT, IMAGES, FAILED = "vectors.json", "images.parquet", "failed.csv"
SHARDS = "shards"
PATH = "path"
VECTOR, WIDTH, HEIGHT, HASH = "vector", "width", "height", "sha256"
OWN = (VECTOR, WIDTH, HEIGHT, HASH)  # columns that are made; a table of images may not have them
Number = Literal["float32", "float16"]
_FAILURES = b"dmlray.failed"


@dataclass(frozen=True)
class About:
    """What the vectors are of; `count` and `failed` are known once it is `complete`.

    `images` hashes the list of images, `total` counts it, `shard` is the images of each shard.
    """

    model: Text
    dimension: FromOne
    number: Number
    images: Sha256
    total: FromOne
    shard: FromOne
    format: Annotated[int, Field(strict=True, ge=1, le=1)] = 1
    complete: bool = False
    count: FromZero = 0
    failed: FromZero = 0

    def parts(self) -> list[tuple[int, int]]:
        """(first, behind the last) of the listed images of each shard."""
        return [
            (start, min(start + self.shard, self.total))
            for start in range(0, self.total, self.shard)
        ]


_ABOUT = TypeAdapter(About)


@dataclass(frozen=True)
class Failure:
    """An image without a vector, and why."""

    path: str
    reason: str


def read_about(folder: Path) -> About:
    """The description of the vectors in `folder`.

    Raises:
        ConfigError: If it holds none.
        DataError: If it is damaged.
    """
    path = folder / ABOUT
    try:
        return checked(_ABOUT, read_json(path))
    except FileNotFoundError:
        problem = f"holds no {ABOUT}. Allowed: a folder that dmlray embed wrote"
        raise ConfigError(str(folder), [problem]) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({reason(error)})") from None


def is_unbegun(folder: Path) -> bool:
    """Whether nothing lies here but what a process leaves that is killed in `write_begun`."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {"no folder"}
    return all(name in (SHARDS, IMAGES) or name.startswith(f".{IMAGES}.") for name in names)


def write_begun(folder: Path, about: About, images: pa.Table) -> None:
    """Make the folder with its list of images, and the description last."""
    (folder / SHARDS).mkdir(parents=True, exist_ok=True)
    with whole_file(folder / IMAGES) as temporary:
        pyarrow.parquet.write_table(images, temporary, row_group_size=about.shard)
    write_about(folder, about)


def read_part(folder: Path, about: About, start: int) -> pa.Table:
    """The listed images of the shard that begins with the image `start`.

    Raises:
        DataError: If the list is missing or damaged.
    """
    path = folder / IMAGES
    try:
        part = pyarrow.parquet.ParquetFile(path).read_row_group(start // about.shard)
    except (OSError, pa.ArrowException) as error:
        why = reason(error) if isinstance(error, OSError) else str(error).splitlines()[0]
        raise DataError(f"{path}: is damaged ({why}); delete {folder} and embed again") from None
    return part.replace_schema_metadata(None)


def write_about(folder: Path, about: About) -> None:
    """Write the description, whole or not at all."""
    write_json(folder / ABOUT, asdict(about))


def shard_path(folder: Path, start: int) -> Path:
    """The shard that begins with the listed image `start`."""
    return folder / SHARDS / f"part-{start:010d}.parquet"


def write_shard(path: Path, rows: pa.Table, failures: Sequence[Failure]) -> None:
    """Write the rows of a shard and what failed of it, whole or not at all."""
    failed = json.dumps([asdict(failure) for failure in failures]).encode()
    rows = rows.replace_schema_metadata({_FAILURES: failed})
    others = [name for name in rows.column_names if name != VECTOR]
    with whole_file(path) as temporary:
        pyarrow.parquet.write_table(
            rows,
            temporary,
            compression={name: "NONE" if name == VECTOR else "ZSTD" for name in rows.column_names},
            use_dictionary=others,
            write_statistics=others,
        )


def open_shard(path: Path) -> pyarrow.parquet.ParquetFile:
    """A shard, mapped into memory.

    Raises:
        DataError: If it is missing or damaged.
    """
    try:
        return pyarrow.parquet.ParquetFile(path, memory_map=True)
    except (OSError, pa.ArrowException) as error:
        why = reason(error) if isinstance(error, OSError) else str(error).splitlines()[0]
        raise DataError(f"{path}: is damaged ({why}); delete it and embed again") from None


def failures_of(shard: pyarrow.parquet.ParquetFile) -> list[Failure]:
    """What failed of a shard's images."""
    metadata = shard.schema_arrow.metadata or {}
    return [Failure(**entry) for entry in json.loads(metadata.get(_FAILURES, b"[]"))]


def finish(folder: Path, about: About) -> About:
    """Write `failed.csv` and complete the description, once all shards are there."""
    count, failures = 0, list[Failure]()
    for start, _ in about.parts():
        shard = open_shard(shard_path(folder, start))
        count += shard.metadata.num_rows
        failures += failures_of(shard)
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(("path", "reason"))
    writer.writerows((failure.path, failure.reason) for failure in failures)
    write_text(folder / FAILED, table.getvalue())
    whole = About(**{**asdict(about), "complete": True, "count": count, "failed": len(failures)})
    write_about(folder, whole)
    return whole


def missing_parts(folder: Path, about: About) -> Iterator[tuple[int, int]]:
    """The ranges of listed images whose shard is not there yet."""
    for start, end in about.parts():
        if not shard_path(folder, start).exists():
            yield start, end
