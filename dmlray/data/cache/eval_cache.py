"""Cache of the images for evaluation: resized once, instead of in each epoch.

When training reads the originals, evaluation has always resized with torch, which differs from
Pillow by one level in a few pixels of a thousand. This cache stores torch's result, so that the
scores of published experiments do not change.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dmlray.data.batches.augment import Transform, resize_short_side
from dmlray.data.cache import cache_build
from dmlray.data.cache.atomic_dir import final_path, make_whole
from dmlray.data.cache.cache_build import Progress
from dmlray.data.cache.decode import resized
from dmlray.data.cache.image_cache import ABOUT, Cache, check_space, size_of

_CHUNK = 256  # images in memory at once


def open_eval_cache(
    transform: Transform,
    opened: Callable[[int | None], Cache],
    progress: Progress | None = None,
    announce: Callable[[int], None] | None = None,
) -> Cache:
    """Open the images resized to the short side of evaluation under `transform`.

    Args:
        transform: Crops and sizes of the evaluation.
        opened: Opens the decoded images of a short side; None means the originals.
        progress: Called with (images done, total images).
        announce: Called with the size in bytes before the first image is resized.

    Raises:
        DataError: If the disk is too small.
    """
    side = transform.eval_short_side
    if side is None or transform.train_short_side is not None:
        return opened(side)
    return _resized_cache(opened(None), side, progress, announce)


def _resized_cache(
    source: Cache,
    short_side: int,
    progress: Progress | None,
    announce: Callable[[int], None] | None,
) -> Cache:
    about = _about(source, short_side)
    key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    folder = final_path("images", f"{source.folder.name.rpartition('-')[0]}-{key}")

    def make(partial_folder: Path) -> None:
        index = _layout(source, short_side)
        check_space(partial_folder, size_of(index))
        if announce:
            announce(size_of(index))
        np.save(partial_folder / cache_build.INDEX, index)
        with open(partial_folder / cache_build.IMAGES, "wb") as file:
            for done, pixels in enumerate(_images(source, short_side), start=1):
                file.write(pixels.data)
                if progress and (done % cache_build.STRIDE == 0 or done == len(source)):
                    progress(done, len(source))
        content = about | {"bytes": size_of(index)}
        (partial_folder / ABOUT).write_text(json.dumps(content), encoding="utf-8")

    make_whole(folder, partial(_is_whole, about, len(source)), make)
    with suppress(OSError):  # may be another user's
        os.utime(folder / ABOUT)
    return Cache(folder)


def _about(source: Cache, short_side: int) -> dict[str, Any]:
    """Description of the cache: its source's, resized; equal descriptions mean equal pixels."""
    about: dict[str, Any] = json.loads((source.folder / ABOUT).read_text(encoding="utf-8"))
    del about["bytes"]
    return about | {"short_side": short_side, "resized_by": "torch"}


def _layout(source: Cache, short_side: int) -> np.ndarray:
    """Compute the index of the flat file: (N, 3) int64 of offset, height, width."""
    sizes = source.sizes(np.arange(len(source))).tolist()
    index = np.zeros((len(source), 3), dtype=np.int64)
    index[:, 1:] = [resized(height, width, short_side) for height, width in sizes]
    index[1:, 0] = (3 * index[:-1, 1] * index[:-1, 2]).cumsum()
    return index


def _images(source: Cache, short_side: int) -> Iterator[np.ndarray]:
    """Yield all images in order, resized by threads: torch releases Python's lock."""

    def one(row: int) -> np.ndarray:
        return np.ascontiguousarray(resize_short_side(source[row], short_side))

    # Otherwise each thread would start its own torch threads.
    with ThreadPoolExecutor(
        cache_build.cores(), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        for start in range(0, len(source), _CHUNK):
            yield from pool.map(one, range(start, min(start + _CHUNK, len(source))))


def _is_whole(about: dict[str, Any], images: int, folder: Path) -> bool:
    """Whether the cache exists, is of these images, and none of its files is truncated."""
    try:
        recorded = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        size, index = (
            (folder / cache_build.IMAGES).stat().st_size,
            np.load(folder / cache_build.INDEX),
        )
        is_same = recorded == about | {"bytes": size}
        return is_same and size_of(index) == size and len(index) == images
    except (OSError, ValueError, EOFError, IndexError):
        return False
