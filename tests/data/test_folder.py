"""Anybody's own images."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlray.data import catalogue
from dmlray.errors import ConfigError, DataError


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def test_lists_images_by_class_then_name(tmp_path: Path) -> None:
    for name in ("b/2.png", "b/10.JPG", "a/x.WebP", "c/1.jpeg", "c/0.PNG"):
        save(tmp_path / name)
    dataset = catalogue.load("folder", tmp_path)
    assert dataset.classes == ("a", "b", "c")
    assert dataset.files == ("a/x.WebP", "b/10.JPG", "b/2.png", "c/0.PNG", "c/1.jpeg")
    np.testing.assert_array_equal(dataset.labels, [0, 1, 1, 2, 2])
    assert dataset.labels.dtype == np.int64
    assert dataset.train_classes == 2  # half of three, rounded up


def test_passes_over_hidden_and_foreign_files(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png", "a/.2.png", ".hidden/1.png", "loose.png"):
        save(tmp_path / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    assert catalogue.load("folder", tmp_path).files == ("a/1.png", "b/1.png")


def test_fingerprint_follows_names_classes_and_sizes(photos: Path, tmp_path: Path) -> None:
    def fingerprint() -> str:
        return catalogue.load("folder", photos).fingerprint

    first = fingerprint()
    assert first == fingerprint()
    moved = photos.rename(tmp_path / "elsewhere")
    assert catalogue.load("folder", moved).fingerprint == first
    moved.rename(photos)
    (photos / "a" / "0.png").rename(photos / "a" / "9.png")
    renamed = fingerprint()
    with open(photos / "b" / "0.png", "ab") as file:
        file.write(b"!")
    assert len({first, renamed, fingerprint()}) == 3


def test_file_that_vanished_is_named(photos: Path) -> None:
    dataset = catalogue.load("folder", photos)
    (photos / "b" / "1.png").unlink()
    with pytest.raises(DataError, match=r"b/1\.png: cannot be read"):
        _ = dataset.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "0 sub-folders, 0 of them with"),
        (["a/1.png"], "1 sub-folders, 1 of them with"),
        (["train/a/1.png", "test/a/1.png"], "2 sub-folders, 0 of them with"),
    ],
)
def test_fewer_than_two_classes_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        save(tmp_path / name)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}: {message}"):
        catalogue.load("folder", tmp_path)


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        catalogue.load("folder", tmp_path / "nowhere")


def test_root_must_be_given() -> None:
    with pytest.raises(ConfigError, match=r"^data\.root: .*needs a folder"):
        catalogue.load("folder", None)


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError) as caught:
        catalogue.load("cup", None)
    assert caught.value.source == "data.name"
    assert str(caught.value).endswith(f"Allowed: {', '.join(catalogue.names())}.")
