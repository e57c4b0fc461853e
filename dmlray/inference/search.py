"""Exact search in a folder of vectors, shard by shard: no copy of all vectors is in memory.

Letters: Q queries, N vectors, B vectors of a shard, D their dimension, K neighbours.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.matmul import add_product
from dmlray.evaluation.neighbours import ROWS, Neighbours, top
from dmlray.inference import vector_files
from dmlray.inference.images import ImageLike
from dmlray.inference.load import load_model
from dmlray.inference.model import Model
from dmlray.inference.vector_files import VECTOR, About
from dmlray.local_paths import path_of
from dmlray.printable import shortened


@dataclass(frozen=True)
class Hit:
    """A neighbour of a query: its cosine, and the columns of its image but for the vector.

    `match`: whether the cosine reaches the threshold; None where none was asked for.
    """

    rank: int
    similarity: float
    columns: dict[str, object]
    match: bool | None = None

    @property
    def path(self) -> str:
        """Return where the image lies."""
        return str(self.columns["path"])

    @property
    def label(self) -> str | None:
        """Return its class, where the table of images has one."""
        label = self.columns.get("label")
        return None if label is None else str(label)


def query(
    model: Model | str | Path,
    vectors: str | Path,
    images: Sequence[ImageLike] | ImageLike,
    k: int = 10,
    device: torch.device | str | None = None,
    *,
    index: bool = False,
    threshold: float | Literal["auto"] | None = None,
) -> list[list[Hit]]:
    """The `k` nearest images of a folder of vectors, best first, of each query image.

    Args:
        model: That of the vectors, or the folder of it.
        vectors: What `embed` wrote.
        images: As `Model.embed` takes them.
        k: Neighbours of each.
        device: Of the model; the search itself runs on the CPU.
        index: Search by the folder's index, see `inference.index`.
        threshold: Cosine from which on a neighbour is a match; "auto": the model's own.

    Raises:
        DmlrayError: If the vectors are of another model or not finished, an image cannot be read,
            there are fewer than `k` vectors, or the model has no threshold.
    """
    vectors = path_of("vectors", vectors)
    about = finished_about(vectors)
    model = model if isinstance(model, Model) else load_model(model)
    if about.model != model.fingerprint:
        problem = f"holds vectors of another model ({about.model}, this one is {model.fingerprint})"
        raise ConfigError(str(vectors), [problem])
    check_k(k, about)
    limit = None if threshold is None else cosine_of(threshold, model)
    rows = torch.from_numpy(model.embed(images, device=device))
    found = hits(vectors, about, _search(vectors, about, rows, k, index))
    if limit is None:
        return found
    return [[replace(hit, match=hit.similarity >= limit) for hit in near] for near in found]


def cosine_of(threshold: float | str, model: Model) -> float:
    """The cosine of a threshold, which may be "auto": that of the model.

    Raises:
        ConfigError: If it is no cosine, or the model has no threshold.
    """
    if threshold == "auto":
        return model.threshold()
    try:
        cosine = float(threshold)
    except (TypeError, ValueError):
        cosine = math.nan
    if not -1 <= cosine <= 1:
        problem = f"{shortened(threshold)} is not allowed"
        raise ConfigError("`threshold`", [f"{problem}. Allowed: auto, or a cosine from -1 to 1"])
    return cosine


def _search(vectors: Path, about: About, rows: Tensor, k: int, index: bool) -> Neighbours:
    if not index:
        return nearest_vectors(vectors, about, rows, k)
    from dmlray.inference.index import search_index

    return search_index(vectors, about, rows, k)


def finished_about(vectors: Path) -> About:
    """The description of vectors that are all there.

    Raises:
        ConfigError: If some are missing, or all images failed.
    """
    about = vector_files.read_about(vectors)
    if not about.complete:
        raise ConfigError(str(vectors), ["is not finished. Run dmlray embed again to go on"])
    if not about.count:
        why = f"none of {about.total} images could be read, see {vectors / vector_files.FAILED}"
        raise ConfigError(str(vectors), [f"holds no vector: {why}"])
    return about


def check_k(k: int, about: About) -> None:
    """Check that there are so many vectors.

    Raises:
        ConfigError: If not.
    """
    if not 1 <= k <= about.count:
        raise ConfigError("k", [f"{k} is not allowed. Allowed: 1 to {about.count}"])


def nearest_vectors(vectors: Path, about: About, queries: Tensor, k: int) -> Neighbours:
    """Cosines and rows (Q, K) of the nearest vectors; of equal ones the lower row comes first."""
    values = torch.empty(len(queries), 0)
    rows = torch.empty(len(queries), 0, dtype=torch.int64)
    for first, shard in read_vectors(vectors, about):
        found = [_best(part, shard, k) for part in queries.split(ROWS)]
        if not found:
            break
        values = torch.cat([values, torch.cat([one.similarities for one in found])], 1)
        rows = torch.cat([rows, torch.cat([one.indices for one in found]) + first], 1)
        values, columns = top(values, min(k, values.shape[1]))
        rows = rows.gather(1, columns)
    return Neighbours(values, rows)


def _best(queries: Tensor, shard: Tensor, k: int) -> Neighbours:
    block = torch.empty(len(queries), len(shard))
    add_product(block, queries, shard)
    return top(block, min(k, len(shard)))


def read_vectors(vectors: Path, about: About) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of the first vector of each shard, and its vectors (B, D) float32."""
    first = 0
    for start, _ in about.parts():
        path = vector_files.shard_path(vectors, start)
        shard = vector_files.open_shard(path)
        if not shard.metadata.num_rows:
            continue
        rows = _numbers(path, shard, about)
        yield first, torch.from_numpy(rows)
        first += len(rows)
    if first != about.count:
        raise DataError(
            f"{vectors}: holds {first} vectors, {vector_files.ABOUT} says {about.count}"
        )


def _numbers(path: Path, shard: pa.parquet.ParquetFile, about: About) -> np.ndarray:
    try:
        column = shard.read([VECTOR], use_threads=False)[VECTOR].combine_chunks()
        numbers = np.from_dlpack(column.flatten()).reshape(-1, about.dimension)
    except (KeyError, ValueError, OSError, pa.ArrowException) as error:
        why = str(error).splitlines()[0]
        raise DataError(f"{path}: is damaged ({why}); delete it and embed again") from None
    if len(numbers) != shard.metadata.num_rows or str(numbers.dtype) != about.number:
        raise DataError(f"{path}: holds other vectors than {vector_files.ABOUT} says")
    return np.require(numbers, np.float32, "W")


def hits(vectors: Path, about: About, found: Neighbours) -> list[list[Hit]]:
    """The neighbours with their columns, which are read of the shards that hold some."""
    columns = _columns(vectors, about, np.unique(found.indices.numpy()))
    return [
        [
            Hit(rank, value, columns[row])
            for rank, (value, row) in enumerate(zip(values, rows, strict=True), start=1)
        ]
        for values, rows in zip(found.similarities.tolist(), found.indices.tolist(), strict=True)
    ]


def _columns(vectors: Path, about: About, rows: np.ndarray) -> dict[int, dict[str, object]]:
    """Row -> all its columns but the vector; `rows` rise."""
    found: dict[int, dict[str, object]] = {}
    first = 0
    for start, _ in about.parts():
        shard = vector_files.open_shard(vector_files.shard_path(vectors, start))
        count = shard.metadata.num_rows
        here = rows[(rows >= first) & (rows < first + count)]
        if len(here):
            names = [name for name in shard.schema_arrow.names if name != VECTOR]
            table = shard.read(names, use_threads=False)
            for row in here.tolist():  # a slice: arrays of indices would import pandas
                found[row] = table.slice(row - first, 1).to_pylist()[0]
        first += count
    return found
