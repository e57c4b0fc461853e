"""Each image decoded once into uint8 that all processes on a node share."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError

from dmlray.data.catalogue import Dataset
from dmlray.errors import DataError
from dmlray.storage import whole_folder, write_json

Progress = Callable[[int, int], None]
_MANY = 2000  # images from which a pool of processes pays
_CHUNK = 64


class Cache:
    """Decoded images: `cache[row]` is (H, W, 3) uint8, a view of the memory-mapped file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = np.load(folder / "index.npy")  # (N, 3) offset, height, width
        self._pixels = np.memmap(folder / "pixels.u8", dtype=np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> np.ndarray:
        offset, height, width = self._index[row]
        return self._pixels[offset : offset + height * width * 3].reshape(height, width, 3)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return Cache, (self.folder,)  # another process maps the file instead of copying it


def cache_folder() -> Path:
    """Where dmlray keeps what it can make again: DMLRAY_CACHE or ~/.cache/dmlray."""
    return Path(os.environ.get("DMLRAY_CACHE") or Path.home() / ".cache" / "dmlray")


def open_cache(
    dataset: Dataset,
    short_side: int | None,
    progress: Progress | None = None,
    processes: int | None = None,
) -> Cache:
    """The decoded images of `dataset`, short side resized as PIL does; made where missing.

    Raises:
        DataError: Names the image that cannot be decoded, or the disk that is too small.
    """
    folder = cache_folder() / "images" / f"{dataset.fingerprint}-{short_side or 'raw'}"
    if not _is_whole(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not _is_whole(folder):
                _build(dataset, short_side, folder, progress, processes)
    return Cache(folder)


def decode(path: Path, short_side: int | None = None) -> np.ndarray:
    """One image of any mode as (H, W, 3) uint8 RGB, upright, transparency over white.

    Raises:
        DataError: If it cannot be decoded.
    """
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image)
            rgb = _to_rgb(upright)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{path}: is not a readable image ({error})") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: is refused, it may be a decompression bomb ({error})") from None
    return np.asarray(_resized(rgb, short_side))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits and more: PIL would clip instead of scaling
        values = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        seen = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return image.convert("RGB")


def _resized(image: Image.Image, short_side: int | None) -> Image.Image:
    """As torchvision's Resize: the long side is rounded down."""
    short, long = sorted(image.size)
    if short_side is None or short == short_side:
        return image
    new_long = int(short_side * long / short)
    size = (short_side, new_long) if image.width <= image.height else (new_long, short_side)
    return image.resize(size, Image.Resampling.BILINEAR)


def _build(
    dataset: Dataset,
    short_side: int | None,
    folder: Path,
    progress: Progress | None,
    processes: int | None,
) -> None:
    """Decode all images into `folder`, whole or not at all."""
    paths = [dataset.root / file for file in dataset.files]
    _check_disk(paths, short_side, folder.parent)
    index, offset = [], 0
    with whole_folder(folder) as temporary:
        with (temporary / "pixels.u8").open("wb") as file:
            for done, image in enumerate(_decoded(paths, short_side, processes), 1):
                index.append((offset, *image.shape[:2]))
                offset += file.write(image.tobytes())
                if progress and (done % _CHUNK == 0 or done == len(paths)):
                    progress(done, len(paths))
        np.save(temporary / "index.npy", np.array(index, np.int64))
        about = {"data": dataset.name, "short_side": short_side, "bytes": offset}
        write_json(temporary / "about.json", {**about, "images": len(paths)})


def _decoded(
    paths: list[Path], short_side: int | None, processes: int | None
) -> Iterator[np.ndarray]:
    count = len(os.sched_getaffinity(0)) if processes is None else processes
    if count < 2 or len(paths) < _MANY:
        yield from map(partial(decode, short_side=short_side), paths)
        return
    with ProcessPoolExecutor(count, mp_context=get_context("fork")) as pool:
        decoded: Iterable[np.ndarray] = pool.map(
            decode, paths, repeat(short_side), chunksize=_CHUNK
        )
        yield from decoded


def _check_disk(paths: list[Path], short_side: int | None, folder: Path) -> None:
    """Estimate from a few images, so that a full disk is known before the work."""
    some = paths[:: max(1, len(paths) // 16)]
    sizes = [_pixels(path, short_side) for path in some]
    needed = 3 * len(paths) * sum(sizes) // len(sizes)
    free = shutil.disk_usage(folder).free
    if needed > free:
        gib = 1 << 30
        raise DataError(
            f"the image cache needs about {needed / gib:.1f} GiB, {folder} has {free / gib:.1f} "
            "GiB free. Name a larger disk with DMLRAY_CACHE"
        )


def _pixels(path: Path, short_side: int | None) -> int:
    try:
        with Image.open(path) as image:
            width, height = image.size
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError):
        return 0  # decoding will name it
    scale = (short_side / min(width, height)) ** 2 if short_side else 1.0
    return int(width * height * scale)


def _is_whole(folder: Path) -> bool:
    try:
        about: dict[str, Any] = json.loads((folder / "about.json").read_text())
        index = np.load(folder / "index.npy")
        size = (folder / "pixels.u8").stat().st_size
    except (OSError, ValueError):
        return False
    return bool(size == about.get("bytes") and len(index) == about.get("images"))
