"""Images of any number -> a folder of vectors, shard by shard in this process; resumable."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from dmlray.data.batches.loader import ahead
from dmlray.data.cache.decode import UnreadableImage
from dmlray.errors import ConfigError, DataError
from dmlray.file_reading import sha256
from dmlray.inference import vector_files
from dmlray.inference.image_list import list_images
from dmlray.inference.images import crop_all, read_image
from dmlray.inference.load import load_model
from dmlray.inference.model import Model, Progress
from dmlray.inference.vector_files import About, Failure, Number
from dmlray.learn.device import default_device, loader_threads, named_device

BATCH = 64  # images; memory is bounded by it
_LEAST, _MOST = 1024, 16_384  # images of a shard: what a kill costs, and what memory holds
_SHARDS = 100  # about as many as there should be of many images


class Row(NamedTuple):
    """An image that was read: its size upright, the SHA-256 of its file, its crops (3, S, S)."""

    place: int
    width: int
    height: int
    sha256: str
    crops: tuple[Tensor, ...]


@dataclass(frozen=True)
class Work:
    """What is embedded into which folder."""

    model: Model
    images: pa.Table
    folder: Path
    about: About
    strict: bool = False


def embed(
    model: Model | str | Path,
    images: pa.Table | Sequence[Path],
    out: str | Path,
    *,
    number: Number = "float32",
    strict: bool = False,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> About:
    """Embed images into the folder `out`, in this process; goes on where it was interrupted.

    Args:
        model: A model, or the folder of one or of a finished run.
        images: A folder, a table of paths, or files, see `list_images`; or such a list itself.
        number: Of vectors in the files.
        strict: End at the first image that cannot be read, instead of listing it in `failed.csv`.
        device: Default: this process's GPU, or the CPU where there is none.
        progress: Called with (images done, images in all).

    Raises:
        DmlrayError: If there is no model or no image, or the folder holds something else.
    """
    where = default_device() if device is None else named_device(device)
    listed = images if isinstance(images, pa.Table) else list_images(images)
    loaded = model if isinstance(model, Model) else load_model(model)
    return run(begin(loaded, listed, Path(out), number, strict), where, progress)


def begin(
    model: Model, images: pa.Table, folder: Path, number: Number = "float32", strict: bool = False
) -> Work:
    """Make the folder, or go on in one that was begun with the same model and images.

    Raises:
        ConfigError: If the folder holds something else or cannot be written.
    """
    taken = [name for name in vector_files.OWN if name in images.column_names]
    if taken:
        raise ConfigError("images", [f"column {taken[0]} is made by dmlray. Allowed: another name"])
    about = About(
        model=model.fingerprint,
        dimension=model.dimension,
        number=number,
        images=_hash(images),
        total=len(images),
        shard=min(max(_LEAST, len(images) // _SHARDS), _MOST),
    )
    if (folder / vector_files.ABOUT).exists():
        there = vector_files.read_about(folder)
        _check_same(folder, about, there)
        return Work(model, images, folder, there, strict)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(str(folder), ["exists and holds no vectors. Allowed: a new folder"])
        (folder / vector_files.SHARDS).mkdir(parents=True)
        vector_files.write_about(folder, about)
    except OSError as error:
        problem = f"cannot be written ({error.strerror}). Allowed: another folder"
        raise ConfigError(str(folder), [problem]) from None
    return Work(model, images, folder, about, strict)


def run(work: Work, device: torch.device, progress: Progress | None = None) -> About:
    """Embed what is missing, in this process; the description of all vectors.

    Args:
        progress: Called with (images done, images in all).

    Raises:
        DataError: If an image cannot be read and `strict` is set.
    """
    missing = list(vector_files.missing_parts(work.folder, work.about))
    done = work.about.total - sum(end - start for start, end in missing)

    def tell(in_part: int) -> None:
        if progress:
            progress(done + in_part, work.about.total)

    tell(0)
    for start, end in missing:
        embed_part(work, start, end, device, tell)
        done += end - start
    if work.about.complete:
        return work.about
    return vector_files.finish(work.folder, work.about)


def embed_part(
    work: Work, start: int, end: int, device: torch.device, tell: Callable[[int], None]
) -> None:
    """Write the shard of the listed images from `start` to `end`; `tell` gets the images done."""
    part = work.images.slice(start, end - start)
    paths = part["path"].to_pylist()
    kept, vectors, failures = list[Row](), list[np.ndarray](), list[Failure]()
    for read in _batches(work, paths, device):
        rows = [row for row in read if isinstance(row, Row)]
        failures += [row for row in read if isinstance(row, Failure)]
        if rows:
            crops = [torch.stack(crop) for crop in zip(*(row.crops for row in rows), strict=True)]
            vectors.append(work.model.embed_crops(crops, device))
        kept += [row._replace(crops=()) for row in rows]
        tell(len(kept) + len(failures))
    table = _table(part, kept, vectors, work.about)
    vector_files.write_shard(vector_files.shard_path(work.folder, start), table, failures)


def _batches(
    work: Work, paths: Sequence[str], device: torch.device
) -> Iterator[list[Row | Failure]]:
    def read(batch: int, part: slice) -> list[Row | Failure]:
        first = part.start
        return [_read(work, first + n, path) for n, path in enumerate(paths[part])]

    starts = range(0, len(paths), BATCH)
    jobs = [(n, slice(start, start + BATCH)) for n, start in enumerate(starts)]
    with closing(ahead(read, jobs, loader_threads(device, torch.get_num_threads()))) as made:
        yield from made


def _read(work: Work, place: int, path: str) -> Row | Failure:
    config = work.model.config
    try:
        image = read_image(path, config.max_pixels)
        digest = sha256(Path(path))
    except UnreadableImage as error:
        if work.strict:
            raise
        return Failure(path, error.reason)
    except (DataError, OSError) as error:
        if work.strict:
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


def _hash(images: pa.Table) -> str:
    """A hash of the list with all its columns: of what is written, not of how it lies in memory."""
    digest = hashlib.sha256(str(images.schema.remove_metadata()).encode())
    for batch in images.to_batches(max_chunksize=4096):
        digest.update(repr(batch.to_pylist()).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _check_same(folder: Path, ours: About, theirs: About) -> None:
    whole = replace(ours, complete=theirs.complete, count=theirs.count, failed=theirs.failed)
    names = {"model": "another model", "images": "other images", "number": "other numbers"}
    for key, name in names.items():
        if getattr(whole, key) != getattr(theirs, key):
            raise ConfigError(str(folder), [f"holds vectors of {name}. Allowed: a new folder"])
    if whole != theirs:
        raise ConfigError(str(folder), ["was begun otherwise. Allowed: a new folder"])
