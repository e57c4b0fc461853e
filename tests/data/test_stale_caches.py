"""Replaced images are decoded again, even if the files are similar."""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlray.data.cache.image_cache import open_cache
from dmlray.data.dataset import Dataset
from tests.data.caches import assert_holds
from tests.data.images import picture


def turned_by_exif(path: Path) -> None:
    """One byte of the file differs."""
    exif = Image.Exif()
    exif[0x112] = 6 if path.exists() else 1
    picture(30, 50).save(path, "jpeg", exif=exif)


def painted(path: Path, suffix: str) -> None:
    """Some pixels in the middle differ; uncompressed, so that the size stays."""
    pixels = np.asarray(picture(300, 400)).copy()
    if path.exists():
        pixels[150, 200:210] = 0
    Image.fromarray(pixels).save(path, suffix, **({"compress_level": 0} if suffix == "png" else {}))


REPLACED: dict[str, Callable[[Path], None]] = {
    "exif": turned_by_exif,
    **{kind: partial(painted, suffix=kind) for kind in ("bmp", "png", "ppm", "tiff")},
}


@pytest.mark.parametrize("old_time", [False, True], ids=["new time", "old time"])
@pytest.mark.parametrize("kind", REPLACED)
def test_images_replaced_by_others_of_the_same_size_are_seen(
    dataset: Dataset, kind: str, old_time: bool
) -> None:
    path = dataset.root / dataset.files[0]
    path.unlink()
    REPLACED[kind](path)
    before, status = dataset.fingerprint, path.stat()
    open_cache(dataset, None, processes=1)
    REPLACED[kind](path)
    assert path.stat().st_size == status.st_size
    if old_time:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    changed = replace(dataset)
    assert changed.fingerprint != before
    assert_holds(open_cache(changed, None, processes=1), changed, None)


def test_the_time_of_a_large_file_counts_where_its_samples_are_equal(dataset: Dataset) -> None:
    path = dataset.root / dataset.files[0]
    pixels = np.zeros((1500, 1000, 3), np.uint8)
    Image.fromarray(pixels).save(path, "bmp")
    open_cache(dataset, 16, processes=1)
    size = path.stat().st_size
    pixels[50] = 255  # 3 kB between the last two samples
    Image.fromarray(pixels).save(path, "bmp")
    assert path.stat().st_size == size
    changed = replace(dataset)
    assert changed.fingerprint == dataset.fingerprint
    assert_holds(open_cache(changed, 16, processes=1), changed, 16)
