"""The embedded data set."""

import importlib.metadata
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlray.data.datasets import icons, registry
from dmlray.errors import ConfigError, DataError

try:
    importlib.metadata.distribution("qtawesome")
    WHEEL = True
except importlib.metadata.PackageNotFoundError:
    WHEEL = False
needs_wheel = pytest.mark.skipif(not WHEEL, reason="the extra dmlray[demo] is not installed")


@needs_wheel
def test_draws_245_classes_from_the_fonts(cache: Path) -> None:
    dataset = registry.load("demo", None)
    images = [np.asarray(Image.open(dataset.root / file)) for file in dataset.files]
    assert (len(dataset.classes), dataset.train_classes) == (245, 123)
    assert abs(len(dataset) - 2384) < 20
    assert np.bincount(dataset.labels).min() >= icons.MIN_IMAGES
    assert {image.shape for image in images} == {(64, 64)}
    assert len({image.tobytes() for image in images}) == len(images)  # no copy, in any class
    assert min(int(np.ptp(image)) for image in images) == 255  # no glyph is blank
    assert "qtawesome" not in sys.modules
    again = registry.load("demo", None)
    assert again.fingerprint == dataset.fingerprint
    assert sorted(path.name for path in cache.iterdir()) == ["demo-1", "demo-1.lock"]


@needs_wheel
def test_glyphs_are_centred_and_fill_most_of_the_image() -> None:
    dataset = registry.load("demo", None)
    inked = np.stack([np.asarray(Image.open(dataset.root / file)) < 255 for file in dataset.files])
    borders = inked[:, [0, -1]].any(axis=(1, 2)) | inked[:, :, [0, -1]].any(axis=(1, 2))
    assert borders.mean() < 0.02  # a few glyphs are wider than their font's size
    for axis in (2, 1):  # rows, columns
        spans: np.ndarray = inked.max(axis=axis)
        middle = (spans.argmax(axis=1) + 63 - spans[:, ::-1].argmax(axis=1)) / 2
        assert np.abs(middle - 31.5).max() <= 0.5


def test_missing_wheel_says_how_to_get_it(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(icons, "distribution", nothing)
    with pytest.raises(DataError, match=r'pip install "dmlray\[demo\]"'):
        registry.load("demo", None)
    assert not (cache / f"demo-{icons.DRAWING}").exists()


def test_a_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: "):
        registry.load("demo", tmp_path)
