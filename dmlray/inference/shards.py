"""One shard of vectors: some listed images -> crops -> vectors -> a file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dmlray.data import boxes
from dmlray.data.batches.loader import ahead
from dmlray.data.cache.decode import UnreadableImageError
from dmlray.errors import DataError
from dmlray.file_reading import sha256
from dmlray.inference import vector_files
from dmlray.inference.images import crop_all, read_image
from dmlray.inference.model import Model
from dmlray.inference.vector_files import About, Failure
from dmlray.learn.device import loader_threads

BATCH = 64  # images; memory is bounded by it


class Row(NamedTuple):
    """An image that was read: its size upright, the SHA-256 of its file, its crops (3, S, S)."""

    place: int
    width: int
    height: int
    sha256: str
    crops: tuple[Tensor, ...]


@dataclass(frozen=True)
class ShardWriter:
    """Embeds the images of one shard after the other, on `device`.

    `strict` ends at the first image that cannot be read.
    """

    model: Model
    folder: Path
    about: About
    device: torch.device
    strict: bool = False

    def write(self, start: int, report: Callable[[int], None] = lambda done: None) -> int:
        """Write the shard that begins with the listed image `start`; the images that it is of.

        Args:
            start: Number of the first image.
            report: Called with the images done.

        Raises:
            DataError: If an image cannot be read and it is `strict`.
        """
        part = vector_files.read_part(self.folder, self.about, start)
        kept, vectors, failures = list[Row](), list[np.ndarray](), list[Failure]()
        for read in self._batches(part[vector_files.PATH].to_pylist()):
            rows = [row for row in read if isinstance(row, Row)]
            failures += [row for row in read if isinstance(row, Failure)]
            if rows:
                pairs = zip(*(row.crops for row in rows), strict=True)
                crops = [torch.stack(crop) for crop in pairs]
                vectors.append(self.model.embed_crops(crops, self.device))
            kept += [row._replace(crops=()) for row in rows]
            report(len(kept) + len(failures))
        table = _table(part, kept, vectors, self.about)
        vector_files.write_shard(vector_files.shard_path(self.folder, start), table, failures)
        return len(part)

    def _batches(self, paths: Sequence[str]) -> Iterator[list[Row | Failure]]:
        def read(batch: int, part: slice) -> list[Row | Failure]:
            return [self._read(part.start + n, path) for n, path in enumerate(paths[part])]

        starts = range(0, len(paths), BATCH)
        jobs = [(n, slice(start, start + BATCH)) for n, start in enumerate(starts)]
        threads = loader_threads(self.device, torch.get_num_threads())
        with closing(ahead(read, jobs, threads)) as made:
            yield from made

    def _read(self, place: int, path: str) -> Row | Failure:
        config = self.model.config
        try:
            image = read_image(path, config.max_pixels)
            digest = sha256(boxes.file_of(Path(path)))
        except UnreadableImageError as error:
            if self.strict:
                raise
            return Failure(path, error.reason)
        except (DataError, OSError) as error:
            if self.strict:
                raise DataError(f"{path}: {error}") from None
            return Failure(path, str(error))
        crops = crop_all([image], config.crops, config.max_pixels)
        return Row(place, image.width, image.height, digest, tuple(crop[0] for crop in crops))


def _table(
    part: pa.Table, rows: Sequence[Row], vectors: Sequence[np.ndarray], about: About
) -> pa.Table:
    """The columns of the listed images that could be read, and those that were made."""
    table = part.take(pa.array([row.place for row in rows], pa.int64()))
    numbers = np.concatenate(vectors) if vectors else np.empty((0, about.dimension))
    flat = pa.array(numbers.astype(about.number).reshape(-1))
    for name, column in (
        (vector_files.WIDTH, pa.array([row.width for row in rows], pa.int32())),
        (vector_files.HEIGHT, pa.array([row.height for row in rows], pa.int32())),
        (vector_files.HASH, pa.array([row.sha256 for row in rows], pa.string())),
        (vector_files.VECTOR, pa.FixedSizeListArray.from_arrays(flat, about.dimension)),
    ):
        table = table.append_column(name, column)
    return table
