"""Anybody's own images."""

import re
from pathlib import Path

import numpy as np
import pytest

from dmlray.data import catalogue, folder
from dmlray.errors import ConfigError, DataError
from tests.data.pictures import picture


def save(root: Path, *names: str) -> None:
    """Save a different image under each name."""
    for seed, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(8, 8, seed).save(path)


def test_lists_images_by_class_then_name(tmp_path: Path) -> None:
    save(tmp_path, "b/2.png", "b/10.JPG", "a/x.WebP", "a/1.png", "c/1.jpeg", "c/0.PNG")
    dataset = catalogue.load("folder", tmp_path)
    assert dataset.classes == ("a", "b", "c")
    assert dataset.files == ("a/1.png", "a/x.WebP", "b/10.JPG", "b/2.png", "c/0.PNG", "c/1.jpeg")
    np.testing.assert_array_equal(dataset.labels, [0, 0, 1, 1, 2, 2])
    assert dataset.labels.dtype == np.int64
    assert dataset.train_classes == 2  # half of three, rounded up
    assert dataset.remarks == ()


def test_numbered_classes_are_halved_by_number(tmp_path: Path) -> None:
    save(tmp_path, *(f"{number}/{image}.png" for number in (10, 2, 1, 9) for image in "ab"))
    dataset = catalogue.load("folder", tmp_path)
    assert dataset.classes == ("1", "2", "9", "10")
    assert dataset.train_classes == 2


def test_passes_over_hidden_and_foreign_files(tmp_path: Path) -> None:
    seen = ("a/1.png", "b/1.png", "b/2.png")
    save(tmp_path, *seen, "a/.2.png", ".hidden/1.png", "loose.png")
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "a" / "folder.png").mkdir()
    (tmp_path / "empty").mkdir()
    assert catalogue.load("folder", tmp_path).files == seen


def test_fingerprint_follows_names_classes_and_sizes(tmp_path: Path) -> None:
    root = tmp_path / "here"
    save(root, "a/0.png", "a/1.png", "b/0.png", "b/1.png")

    def fingerprint() -> str:
        return catalogue.load("folder", root).fingerprint

    first = fingerprint()
    assert first == fingerprint()
    moved = root.rename(tmp_path / "elsewhere")
    assert catalogue.load("folder", moved).fingerprint == first
    moved.rename(root)
    (root / "a" / "0.png").rename(root / "a" / "9.png")
    renamed = fingerprint()
    with open(root / "b" / "0.png", "ab") as file:
        file.write(b"!")
    assert len({first, renamed, fingerprint()}) == 3


def test_file_that_vanished_is_named(tmp_path: Path) -> None:
    save(tmp_path, "a/0.png", "a/1.png", "b/0.png", "b/1.png")
    dataset = catalogue.load("folder", tmp_path)
    (tmp_path / "b" / "1.png").unlink()
    with pytest.raises(DataError, match=r"b/1\.png: cannot be read"):
        _ = dataset.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "0 sub-folders, 0 of them with"),
        (["a/1.png"], "1 sub-folders, 1 of them with"),
        (["train/a/1.png", "test/a/1.png"], "2 sub-folders, 0 .* set data.split=given"),
    ],
)
def test_fewer_than_two_classes_are_refused(tmp_path: Path, names: list[str], message: str) -> None:
    save(tmp_path, *names)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}: {message}"):
        catalogue.load("folder", tmp_path)


def test_given_sides_are_kept(tmp_path: Path) -> None:
    save(tmp_path, "train/z/1.png", "train/y/1.png", "test/a/1.png", "test/a/2.png", "val/b/1.png")
    dataset = folder.load(tmp_path, "given")
    assert dataset.files == ("train/y/1.png", "train/z/1.png", "test/a/1.png", "test/a/2.png")
    assert dataset.classes == ("y", "z", "a")
    assert dataset.train_classes == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train/a/1.png", "train/a/2.png"], "test: no such folder"),
        (["test/a/1.png", "test/a/2.png"], "train: no such folder"),
        (["train/a/1.png", "test/1.png"], "test: no sub-folder with"),
    ],
)
def test_given_needs_both_sides(tmp_path: Path, names: list[str], message: str) -> None:
    save(tmp_path, *names)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path))}/{message}.*Expected"):
        folder.load(tmp_path, "given")


def test_lone_test_image_and_copies_are_named_by_their_files(tmp_path: Path) -> None:
    save(tmp_path, "a/0.png", "a/1.png", "b/0.png")
    with pytest.raises(DataError, match=r"/b/0\.png: the only image of test class 'b'"):
        folder.load(tmp_path)
    (tmp_path / "b" / "1.png").write_bytes((tmp_path / "a" / "1.png").read_bytes())
    with pytest.raises(DataError, match=r"/a/1\.png and .*/b/1\.png: the same image"):
        folder.load(tmp_path)


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
