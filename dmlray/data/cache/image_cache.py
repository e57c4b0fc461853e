"""Cache of decoded images: decoded once per machine and read through one memory map."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from dmlray.data.cache import cache_build
from dmlray.data.cache.atomic_dir import cache_folder, final_path, is_own, make_whole, roots
from dmlray.data.cache.cache_build import Progress
from dmlray.data.cache.decode import limit
from dmlray.data.cache.findings import refusal
from dmlray.data.dataset import Dataset
from dmlray.errors import DataError

__all__ = ["Cache", "cache_folder", "find_broken", "images_folder", "open_cache"]

About = dict[str, Any]
FORMAT = 2  # increased when decoding changes
ABOUT = "cache.json"  # its modification time is that of the last use
RESERVE = 10**9  # bytes kept free for the runs; on a small disk 1/20 of it


class Cache:
    """N decoded images of one data set, in its order: `cache[i]` is (height, width, 3) uint8.

    All processes of a machine share the pages of the file; a pickle holds only the path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = np.load(folder / cache_build.INDEX)
        self._index: np.ndarray = index[index[:, 1] > 0]  # broken images have height 0
        # A plain array over the map: slicing np.memmap takes ten times as long.
        self._pixels = np.asarray(np.memmap(folder / cache_build.IMAGES, dtype=np.uint8, mode="r"))

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, row: int) -> np.ndarray:
        offset, height, width = self._index[row].tolist()
        pixels = self._pixels[offset : offset + 3 * height * width]
        return pixels.reshape(height, width, 3)

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Height and width of images `rows` (n,), as (n, 2) int64."""
        return self._index[rows, 1:]

    @property
    def broken(self) -> dict[str, str]:
        """Files that could not be decoded -> reasons; the cache has no rows for them."""
        return dict(self._about["broken"])

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks for every score of these images."""
        return tuple(self._about["remarks"])

    @cached_property
    def _about(self) -> About:
        about: About = json.loads((self.folder / ABOUT).read_text(encoding="utf-8"))
        return about

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return type(self), (self.folder,)


def open_cache(
    dataset: Dataset,
    short_side: int | None,
    progress: Progress | None = None,
    processes: int | None = None,
    announce: Callable[[int], None] | None = None,
    max_pixels: int | None = None,
) -> Cache:
    """Open the decoded images of `dataset`; the first call on a machine decodes them.

    Machines may share the folder: for NFS see `make_whole`.

    Args:
        dataset: Images to decode.
        short_side: Pixels to resize to, as Pillow and torchvision's Resize do; None keeps the size.
        progress: Called with (images done, total images).
        processes: Processes that decode; None means one per core, 1 means this one.
        announce: Called with the size in bytes before the first image is decoded.
        max_pixels: Larger images are refused; None means Pillow's limit.

    Raises:
        DataError: If images cannot be read (lists them) or the disk is too small.
    """
    listed = dataset.listed or dataset
    about = _about(listed, short_side, max_pixels)
    cache = _made(listed, about, progress, processes, announce, skip=listed is not dataset)
    if listed is dataset:
        _refuse_broken(cache.broken, listed)
    if len(cache) != len(dataset):
        raise DataError(f"{listed.root}: other images are broken than before. Run it again.")
    return cache


def find_broken(
    dataset: Dataset,
    short_side: int | None,
    progress: Progress | None = None,
    announce: Callable[[int], None] | None = None,
    max_pixels: int | None = None,
) -> dict[str, str]:
    """Decode all images into the cache and return those that cannot be decoded, with reasons.

    Raises:
        DataError: If the disk is too small or fails to read an image.
    """
    about = _about(dataset, short_side, max_pixels)
    return _made(dataset, about, progress, None, announce, skip=True).broken


def images_folders() -> list[Path]:
    """Folders that may hold caches of this user."""
    folders = [root / "images" for root in roots()]
    return [folder for folder in folders if is_own(folder.parent) and is_own(folder)]


def images_folder() -> Path:
    """Folder for new caches."""
    return next(iter(images_folders()), roots()[1] / "images")


def _about(dataset: Dataset, short_side: int | None, max_pixels: int | None = None) -> About:
    """Description of a cache; equal descriptions mean equal pixels."""
    return {
        "format": FORMAT,
        "fingerprint": dataset.fingerprint,
        "modified": dataset.modified,  # the fingerprint only samples large files
        "root": str(dataset.root),
        "images": len(dataset),
        "short_side": short_side,
        "max_pixels": limit(max_pixels),
    }


def _made(
    dataset: Dataset,
    about: About,
    progress: Progress | None,
    processes: int | None,
    announce: Callable[[int], None] | None,
    skip: bool,
) -> Cache:
    """Open the cache that `about` describes, built if missing; broken images only if `skip`."""
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folder = final_path("images", f"{dataset.name}-{key}")
    job = cache_build.DecodeJob(
        str(dataset.root), dataset.files, about["short_side"], about["max_pixels"]
    )
    cores = processes or cache_build.cores()

    def make(partial_folder: Path) -> None:
        index = cache_build.measure(job, partial_folder, cores)
        check_space(partial_folder, size_of(index))
        if announce:
            announce(size_of(index))
        findings = cache_build.write(job, index, partial_folder, cores, progress)
        broken, unreached = (
            {dataset.files[row]: reason for row, reason in sorted(reasons.items())}
            for reasons in (findings.broken, findings.unreached)
        )
        if not skip or len(broken) == len(dataset):
            _refuse_broken(broken | unreached, dataset)
        if unreached:
            raise refusal(dataset.root, unreached, len(dataset))
        details = {"broken": broken, "remarks": findings.remarks(dataset.files)}
        _describe(partial_folder, about | details)

    make_whole(folder, partial(_is_whole, about), make)
    with suppress(OSError):  # may be root's
        os.utime(folder / ABOUT)
    return Cache(folder)


def _refuse_broken(reasons: dict[str, str], dataset: Dataset) -> None:
    if reasons:
        advice = " Replace or remove them, or leave them out with data.skip_broken=true."
        listed = {file: f"not a readable image: {reason}" for file, reason in reasons.items()}
        raise refusal(dataset.root, listed, len(dataset), advice)


def _describe(folder: Path, about: About) -> None:
    """Write the description of the finished cache and remove temporary files."""
    for file in folder.iterdir():
        if file.name not in (cache_build.IMAGES, cache_build.INDEX):
            file.unlink()
    about["bytes"] = (folder / cache_build.IMAGES).stat().st_size
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")


def size_of(index: np.ndarray) -> int:
    """Size in bytes of the images that `index` lists."""
    return int(3 * (index[:, 1] * index[:, 2]).sum())


def check_space(folder: Path, size: int) -> None:
    """Check that a cache of `size` bytes fits on the disk.

    Raises:
        DataError: If it does not.
    """
    disk = shutil.disk_usage(folder)
    reserve = min(RESERVE, disk.total // 20)
    if size > disk.free - reserve:
        raise DataError(
            f"{folder.parent}: the decoded images take {size / 1e9:.2f} GB and the disk has"
            f" {disk.free / 1e9:.2f} GB free, of which {reserve / 1e9:.2f} GB must stay free."
            " Free disk space, or set DMLRAY_CACHE to a folder on a larger disk."
        )


def _is_whole(about: About, folder: Path) -> bool:
    """Whether the cache exists, is of these images, and none of its files is truncated."""
    try:
        recorded = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        index = np.load(folder / cache_build.INDEX)
        size = (folder / cache_build.IMAGES).stat().st_size
        as_described = {key: recorded[key] for key in about} == about and recorded["bytes"] == size
        return as_described and len(index) == about["images"] and _end(index) <= size
    except (OSError, ValueError, EOFError, IndexError, KeyError, TypeError):
        return False


def _end(index: np.ndarray) -> int:
    """End of the last image in bytes, without broken images."""
    return int((index[:, 0] + 3 * index[:, 1] * index[:, 2])[index[:, 1] > 0].max(initial=0))
