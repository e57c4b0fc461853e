"""Tables of images as parquet files and as `save_to_disk` of `datasets` writes them."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from tests.data.images import picture

STORED = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(seed: int) -> bytes:
    content = io.BytesIO()
    picture(8, 8, seed).save(content, "PNG")
    return content.getvalue()


def images(count: int, first: int = 0) -> pa.Array:
    """Images as `datasets` stores them."""
    stored = [{"bytes": png(first + number), "path": None} for number in range(count)]
    return pa.array(stored, STORED)


def table(
    columns: Mapping[str, Any], classes: Mapping[str, Sequence[str]] | None = None
) -> pa.Table:
    """A table with the class names that `datasets` writes into its metadata."""
    features = {
        name: {"names": list(names), "_type": "ClassLabel"}
        for name, names in (classes or {}).items()
    }
    made = pa.table(dict(columns))
    return made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def saved(folder: Path, *parts: pa.Table) -> Path:
    """Write the parts of a Dataset as `save_to_disk` does."""
    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(parts):05}.arrow" for number in range(len(parts))]
    for name, part in zip(names, parts, strict=True):
        with pa.ipc.new_stream(folder / name, part.schema) as stream:
            stream.write_table(part)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    return folder


def saved_splits(folder: Path, splits: Mapping[str, pa.Table]) -> Path:
    """Write a DatasetDict as `save_to_disk` does."""
    for split, part in splits.items():
        saved(folder / split, part)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))
    return folder


def parquet(path: Path, part: pa.Table) -> Path:
    pyarrow.parquet.write_table(part, path)
    return path
