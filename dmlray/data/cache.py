"""Decoded images, shared: each is decoded once per machine and read through one memory map."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dmlray.data import build
from dmlray.data.dataset import Dataset
from dmlray.data.storage import cache_folder, make_whole
from dmlray.errors import DataError

__all__ = ["Cache", "cache_folder", "images_folder", "open_cache"]

FORMAT = 1  # raised when the same images would be decoded otherwise
ABOUT = "cache.json"  # its time is that of the last use
RESERVE = 10**9  # bytes that stay free for the runs themselves; on a small disk 1/20 of it


class Cache:
    """N decoded images of one data set, in its order: `cache[i]` is (height, width, 3) uint8.

    The pages of the file are shared by all processes of a machine; pickling carries the address.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index: np.ndarray = np.load(folder / build.INDEX)
        # A bare array of the map: a slice of np.memmap costs ten times as much.
        self._pixels = np.asarray(np.memmap(folder / build.IMAGES, dtype=np.uint8, mode="r"))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> np.ndarray:
        offset, height, width = self._index[row].tolist()
        pixels = self._pixels[offset : offset + 3 * height * width]
        return pixels.reshape(height, width, 3)

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Height and width of images `rows` (n,), as (n, 2) int64."""
        return self._index[rows, 1:]

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.folder,)


def open_cache(
    dataset: Dataset,
    short_side: int | None,
    progress: Callable[[int, int], None] | None = None,
    processes: int | None = None,
    announce: Callable[[int], None] | None = None,
) -> Cache:
    """Open the decoded images of `dataset`; the first call on a machine decodes them.

    Machines may share the folder: see `make_whole` for what holds on NFS.

    Args:
        short_side: Pixels to resize to, as Pillow and torchvision's Resize do; None keeps all.
        progress: Called with (images done, images in all).
        processes: That decode; None means one per core, 1 means this one.
        announce: Called with the size in bytes before the first image is decoded.

    Raises:
        DataError: If an image cannot be read or the disk is too small.
    """
    about = _about(dataset, short_side)
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folder = images_folder() / f"{dataset.name}-{key}"

    def make(partial_folder: Path) -> None:
        job = build.Job(str(dataset.root), dataset.files, short_side)
        index = build.measure(job, partial_folder, processes or cores())
        check_space(partial_folder, size_of(index))
        if announce:
            announce(size_of(index))
        build.write(job, index, partial_folder, processes or cores(), progress)
        _describe(partial_folder, about | {"bytes": size_of(index)})

    make_whole(folder, partial(_is_whole, about), make)
    with suppress(OSError):  # may be another user's
        os.utime(folder / ABOUT)
    return Cache(folder)


def images_folder() -> Path:
    """Where all caches lie, one folder each."""
    return cache_folder() / "images"


def _about(dataset: Dataset, short_side: int | None) -> dict[str, Any]:
    """What a cache holds; equal descriptions have equal pixels."""
    return {
        "format": FORMAT,
        "fingerprint": dataset.fingerprint,
        "root": str(dataset.root),  # other folders may hold other images of the same sizes
        "images": len(dataset),
        "short_side": short_side,
    }


def _describe(folder: Path, about: dict[str, Any]) -> None:
    """Say what the finished cache holds and leave nothing else beside it."""
    for rest in folder.iterdir():
        if rest.name not in (build.IMAGES, build.INDEX):
            rest.unlink()
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def size_of(index: np.ndarray) -> int:
    """Bytes of the images that `index` lists."""
    return int(3 * (index[:, 1] * index[:, 2]).sum())


def check_space(folder: Path, size: int) -> None:
    """Refuse a cache of `size` bytes that would fill the disk.

    Raises:
        DataError: If it does not fit.
    """
    disk = shutil.disk_usage(folder)
    reserve = min(RESERVE, disk.total // 20)
    if size > disk.free - reserve:
        raise DataError(
            f"{folder.parent}: the decoded images take {size / 1e9:.2f} GB and the disk has"
            f" {disk.free / 1e9:.2f} GB free, of which {reserve / 1e9:.2f} GB must stay free."
            " Make room, or name a larger disk by DMLRAY_CACHE."
        )


def _is_whole(about: dict[str, Any], folder: Path) -> bool:
    """Tell whether the cache is there, is of these images, and none of its files is cut short."""
    try:
        found = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        index = np.load(folder / build.INDEX)
        size = size_of(index)
        stored = (folder / build.IMAGES).stat().st_size
    except (OSError, ValueError, EOFError, IndexError):
        return False
    return len(index) == about["images"] and size == stored and found == about | {"bytes": size}


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
