"""The data set `letters` is drawn once, from typefaces that matplotlib comes with."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlray.data.datasets import letters, registry
from dmlray.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path))
    return tmp_path


def test_letters_are_drawn_in_sixteen_typefaces() -> None:
    dataset = registry.load("letters", None)
    names = [chr(int(name)) for name in dataset.classes]
    assert names == sorted(names)
    assert {"A", "g", "Ω", "ж"} <= set(names)
    assert dataset.train_classes == len(names) // 2
    counts = np.bincount(dataset.labels)
    assert counts.max() == letters.TYPEFACES
    assert counts.min() >= 10


def test_no_two_letters_have_an_image_in_common() -> None:
    dataset = registry.load("letters", None)
    owners: dict[bytes, set[int]] = {}
    for file, label in zip(dataset.files, dataset.labels, strict=True):
        pixels = Image.open(dataset.root / file).tobytes()
        owners.setdefault(pixels, set()).add(int(label))
    assert all(len(labels) == 1 for labels in owners.values())
    assert len(owners) == len(dataset.files)


def test_a_root_and_missing_typefaces_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="'letters' draws its own images"):
        registry.load("letters", tmp_path)
    monkeypatch.setattr("matplotlib.get_data_path", lambda: str(tmp_path))
    with pytest.raises(DataError, match=r"needs the 16 typefaces .* which has 0 of them"):
        registry.load("letters", None)
