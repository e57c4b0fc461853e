"""Drawn images and a separate cache for every test."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from dmlray.data.cache import cache_build
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.folder import read
from tests.data.images import picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("DMLRAY_CACHE", str(folder))
    return folder


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


@pytest.fixture
def shared() -> Iterator[Path]:
    """Return an empty folder that every user of this machine may enter."""
    with TemporaryDirectory(dir="/tmp") as root:
        os.chmod(root, 0o755)
        yield Path(root)


@pytest.fixture
def dataset(photos: Path) -> Dataset:
    """Classes a, b and c train, d and e test."""
    return read("folder", photos)


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use several processes even for small data sets."""
    monkeypatch.setattr(cache_build, "FEW", 0)
    monkeypatch.setattr(cache_build, "FEW_HEADERS", 0)
    monkeypatch.setattr(cache_build, "STRIDE", 4)
