"""Drawn images in a folder of their own, and a cache of their own for every test."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Draw = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DMLRAY_CACHE", str(folder))
    return folder


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise: neither flat nor pure noise, so that resizing matters."""
    rng = np.random.default_rng(seed)
    waves = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    smooth = np.asarray(waves.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noise = rng.integers(-20, 21, (height, width, 3))
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five classes of 3, 4, 5, 6 and 1 images of different sizes."""
    root = tmp_path / "photos"
    for label, count in zip("abcde", (3, 4, 5, 6, 1), strict=True):
        (root / label).mkdir(parents=True)
        for number in range(count):
            image = picture(40 + 7 * number, 50 - 6 * number, seed=ord(label) + 10 * number)
            image.save(root / label / f"{number}.png")
    return root
