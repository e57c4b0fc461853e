"""A faiss index over a folder of vectors, for more of them than an exact search is quick for.

Letters: Q queries, N vectors, D their dimension, K neighbours.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field, TypeAdapter
from torch import Tensor

from dmlray.atomic_files import whole_file, write_json
from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.neighbours import Neighbours
from dmlray.file_reading import read_json, reason, sha256
from dmlray.inference.search import finished_about, nearest_vectors, read_vectors
from dmlray.inference.vector_files import About
from dmlray.json_schema import FromOne, Sha256, Text, checked
from dmlray.local_paths import path_of

Kind = Literal["flat", "hnsw", "ivfpq"]
FILE, DESCRIPTION = "index.faiss", "index.json"
LEAST_FOR_PQ = 10_000  # vectors: fewer do not fill the 256 centroids of its codes
_SAMPLE, _K = 1000, 10  # of the recall that is reported
_NEIGHBOURS, _EFFORT = 32, 64  # of HNSW: links of each vector, candidates of a search
_PER_LIST = 39  # vectors for each list, as faiss wants for its k-means
_MOST_TRAINED = 500_000


@dataclass(frozen=True)
class Index:
    """What an index is of; `recall_at_10` of the `sample` is against the exact search."""

    kind: Kind
    model: Text
    count: FromOne
    recall_at_10: Annotated[float, Field(strict=True, ge=0, le=1)]
    sample: FromOne
    sha256: Sha256
    format: Annotated[int, Field(strict=True, ge=1, le=1)] = 1


_INDEX = TypeAdapter(Index)


def build_index(
    vectors: str | Path, kind: Kind, progress: Callable[[int, int], None] = lambda done, total: None
) -> Index:
    """Write `index.faiss` into a folder of vectors, and compare it with the exact search.

    Raises:
        DmlrayError: If the vectors are not finished or damaged, or too few for this kind.
    """
    vectors = path_of("vectors", vectors)
    about = finished_about(vectors)
    faiss = _faiss()
    index = _empty(faiss, kind, about)
    if not index.is_trained:
        index.train(_sample(vectors, about, min(about.count, _MOST_TRAINED)).numpy())
    for first, rows in read_vectors(vectors, about):
        index.add(rows.numpy())
        progress(first + len(rows), about.count)
    recall, sample = _recall(vectors, about, index)
    with whole_file(vectors / FILE) as temporary:
        faiss.write_index(index, str(temporary))
    digest = sha256(vectors / FILE)
    made = Index(kind, about.model, about.count, recall, sample, digest)
    write_json(vectors / DESCRIPTION, asdict(made))
    return made


def search_index(vectors: Path, about: About, queries: Tensor, k: int) -> Neighbours:
    """As `nearest_vectors`, by the index: quicker, and not all neighbours are the nearest.

    Raises:
        ConfigError: If there is no index, or it is of other vectors.
        DataError: If it is damaged.
    """
    path = vectors / DESCRIPTION
    try:
        known = checked(_INDEX, read_json(path))
        if sha256(vectors / FILE) != known.sha256:
            raise ValueError("its SHA-256 differs")
    except FileNotFoundError:
        problem = "holds no index. Allowed: one that dmlray index wrote"
        raise ConfigError(str(vectors), [problem]) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: is damaged ({reason(error)}); make it again") from None
    if (known.model, known.count) != (about.model, about.count):
        raise ConfigError(str(path), ["is of other vectors. Make it again by dmlray index"])
    return _searched(_faiss().read_index(str(vectors / FILE)), queries, k)


def _searched(index: Any, queries: Tensor, k: int) -> Neighbours:
    values, rows = index.search(np.ascontiguousarray(queries.numpy()), k)
    if (rows < 0).any():
        raise ConfigError("k", [f"{k} are more than the index finds. Allowed: the exact search"])
    return Neighbours(torch.from_numpy(values), torch.from_numpy(rows))


def _empty(faiss: Any, kind: Kind, about: About) -> Any:
    """An index of the inner product, which knows nothing yet."""
    size = about.dimension
    if kind == "flat":
        return faiss.IndexFlatIP(size)
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(size, _NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efSearch = _EFFORT
        return index
    if about.count < LEAST_FOR_PQ:
        problem = f"ivfpq of {about.count} vectors is not allowed"
        raise ConfigError("kind", [f"{problem}. Allowed: from {LEAST_FOR_PQ} on, or flat, hnsw"])
    lists = min(int(4 * about.count**0.5), about.count // _PER_LIST)
    codes = max(part for part in range(1, min(64, max(1, size // 4)) + 1) if size % part == 0)
    index = faiss.index_factory(size, f"IVF{lists},PQ{codes}", faiss.METRIC_INNER_PRODUCT)
    index.nprobe = max(1, lists // 16)
    return index


def _recall(vectors: Path, about: About, index: Any) -> tuple[float, int]:
    """The share of the exact 10 nearest others that the index finds, of a sample; its size.

    A single vector has no others, and none is missed.
    """
    k = min(_K + 1, about.count)
    queries = _sample(vectors, about, _SAMPLE)
    exact, found = nearest_vectors(vectors, about, queries, k), index.search(queries.numpy(), k)[1]
    own = _places(about, _SAMPLE)
    every = zip(own.tolist(), exact.indices.tolist(), found.tolist(), strict=True)
    others = [(set(right) - {number}, set(rows)) for number, right, rows in every]
    shares = [len(right & rows) / len(right) if right else 1.0 for right, rows in others]
    return float(np.mean(shares)), len(own)


def _places(about: About, size: int) -> np.ndarray:
    """At most `size` rows, evenly spread."""
    places = np.linspace(0, about.count - 1, min(size, about.count)).round()
    found: np.ndarray = np.unique(places.astype(np.int64))
    return found


def _sample(vectors: Path, about: About, size: int) -> Tensor:
    """The vectors of `_places` (Q, D)."""
    places = _places(about, size)
    parts = []
    for first, rows in read_vectors(vectors, about):
        here = places[(places >= first) & (places < first + len(rows))]
        parts.append(rows[torch.from_numpy(here - first)])
    return torch.cat(parts)


def _faiss() -> Any:
    import faiss  # half a second to import

    return faiss
