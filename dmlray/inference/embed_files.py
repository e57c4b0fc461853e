"""Images of any number -> a folder of vectors, shard by shard in this process; resumable."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import torch

from dmlray.errors import ConfigError
from dmlray.inference import vector_files
from dmlray.inference.image_list import Sources, list_images
from dmlray.inference.load import load_model
from dmlray.inference.model import Model, Progress
from dmlray.inference.shards import ShardWriter
from dmlray.inference.vector_files import About, Number
from dmlray.learn.device import default_device, named_device
from dmlray.local_paths import path_of

_LEAST, _MOST = 1024, 16_384  # images of a shard: what a kill costs, and what memory holds
_SHARDS = 100  # about as many as there should be of many images


def embed(
    model: Model | str | Path,
    images: pa.Table | Sources,
    out: str | Path,
    *,
    number: Number = "float32",
    shard: int | None = None,
    strict: bool = False,
    device: torch.device | str | None = None,
    progress: Progress | None = None,
) -> About:
    """Embed images into the folder `out`, in this process; goes on where it was interrupted.

    Args:
        model: A model, or the folder of one or of a finished run.
        images: A folder, a table of paths, or files, see `list_images`; or such a list itself.
        out: Folder of the vectors; one that was begun goes on.
        number: Of vectors in the files.
        shard: Images of each file, which is what a kill costs; default: 1,024 to 16,384.
        strict: End at the first image that cannot be read, instead of listing it in `failed.csv`.
        device: Default: this process's GPU, or the CPU where there is none.
        progress: Called with (images done, images in all).

    Raises:
        DmlrayError: If there is no model or no image, or the folder holds something else.
    """
    where = default_device() if device is None else named_device(device)
    loaded = model if isinstance(model, Model) else load_model(model)
    folder = path_of("out", out)
    about = begin(loaded, images, folder, number, shard)
    return _embed_missing(ShardWriter(loaded, folder, about, where, strict), progress)


def _embed_missing(writer: ShardWriter, progress: Progress | None) -> About:
    about = writer.about
    missing = list(vector_files.missing_parts(writer.folder, about))
    done = about.total - sum(end - start for start, end in missing)

    def report(in_part: int) -> None:
        if progress:
            progress(done + in_part, about.total)

    report(0)
    for start, _ in missing:
        done += writer.write(start, report)
    return about if about.complete else vector_files.finish(writer.folder, about)


def begin(
    model: Model,
    images: pa.Table | Sources,
    folder: Path,
    number: Number = "float32",
    shard: int | None = None,
) -> About:
    """Make the folder, or go on in one that was begun with the same model and images.

    Raises:
        ConfigError: If the folder holds something else or cannot be written.
        DataError: If there are no images.
    """
    listed = images if isinstance(images, pa.Table) else list_images(images)
    about = _about(model, listed, number, shard)
    if (folder / vector_files.ABOUT).exists():
        there = vector_files.read_about(folder)
        _check_same(folder, about, there)
        return there
    try:
        if folder.exists() and not vector_files.is_unbegun(folder):
            raise ConfigError(str(folder), ["exists and holds no vectors. Allowed: a new folder"])
        vector_files.write_begun(folder, about, listed)
    except OSError as error:
        problem = f"cannot be written ({error.strerror}). Allowed: another folder"
        raise ConfigError(str(folder), [problem]) from None
    return about


def _about(model: Model, listed: pa.Table, number: Number, shard: int | None) -> About:
    taken = [name for name in vector_files.OWN if name in listed.column_names]
    if taken:
        raise ConfigError("images", [f"column {taken[0]} is made by dmlray. Allowed: another name"])
    return About(
        model=model.fingerprint,
        dimension=model.dimension,
        number=number,
        images=_hash(listed),
        total=len(listed),
        shard=shard or min(max(_LEAST, len(listed) // _SHARDS), _MOST),
    )


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
