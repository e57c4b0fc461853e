"""Duplicate images."""

import os
from pathlib import Path

import numpy as np
import pytest

from dmlray.data.cache.content import WHOLE
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import duplicates
from dmlray.errors import DataError


def data(root: Path, *classes: list[bytes], train: int) -> Dataset:
    """Write the images of each class; the first `train` classes train."""
    contents = [content for images in classes for content in images]
    for row, content in enumerate(contents):
        (root / str(row)).write_bytes(content)
    labels = np.repeat(np.arange(len(classes)), list(map(len, classes)))
    names = tuple("abcdef"[: len(classes)])
    return Dataset("toy", root, tuple(map(str, range(len(contents)))), labels, names, train)


def check(dataset: Dataset) -> str | None:
    return duplicates.check(dataset, lambda row: f"row {row}")


def long(first: bytes = b"", middle: bytes = b"-", last: bytes = b"") -> bytes:
    """Files too large to be hashed whole, equal except the given bytes."""
    rest = bytes(2 * WHOLE)
    return first + rest + middle + rest + last


def test_images_of_equal_size_that_differ_anywhere_are_no_copies(tmp_path: Path) -> None:
    images = [long(first=b"a"), long(first=b"b"), long(last=b"a"), long(last=b"b")]
    middles = [long(middle=b"xy"), long(middle=b"yx"), b"short", b"trohs"]
    assert check(data(tmp_path, images, middles, train=1)) is None


def test_copies_within_a_class_are_counted(tmp_path: Path) -> None:
    dataset = data(tmp_path, [b"x", long(), b"x", b"x"], [b"y", b"z", b"y"], train=1)
    assert check(dataset) == "3 of 7 images repeat another of their class"


def test_image_in_training_and_in_test_is_refused(tmp_path: Path) -> None:
    dataset = data(tmp_path, [b"p", long()], [b"q", b"r"], [long(), b"p"], train=2)
    message = "^row 0 and row 5: the same image, in training and in test.*; 2 pairs are not"
    with pytest.raises(DataError, match=message):
        check(dataset)


@pytest.mark.parametrize("train", [0, 2])
def test_image_in_two_classes_of_one_side_is_refused(tmp_path: Path, train: int) -> None:
    dataset = data(tmp_path, [b"p", b"q"], [b"r", b"q"], train=train)
    with pytest.raises(DataError, match=r"^row 1 and row 3: .*in class 'a' and in class 'b'"):
        check(dataset)


def test_pairs_are_counted_without_listing_them(tmp_path: Path) -> None:
    dataset = data(tmp_path, [b"p"] * 300, [b"p"] * 200, [b"p", b"q"], train=2)
    with pytest.raises(DataError, match=f"; {300 * 200 + 500} pairs are not"):
        check(dataset)


def test_empty_files_are_no_copies(tmp_path: Path) -> None:
    assert check(data(tmp_path, [b"", b""], [b""], train=1)) is None


def test_a_link_is_a_copy(tmp_path: Path) -> None:
    dataset = data(tmp_path, [b"p"], [b"q"], train=1)
    os.unlink(tmp_path / "1")
    os.symlink(tmp_path / "0", tmp_path / "1")
    with pytest.raises(DataError, match="the same image"):
        check(dataset)


@pytest.mark.parametrize("damage", ["gone", "folder"])
def test_file_that_cannot_be_read_hides_no_copies(tmp_path: Path, damage: str) -> None:
    dataset = data(tmp_path, [b"p", b"x", b"x"], [b"q"], train=1)
    os.unlink(tmp_path / "3")
    if damage == "folder":
        (tmp_path / "3").mkdir()
        size = (tmp_path / "3").stat().st_size
        (tmp_path / "0").write_bytes(bytes(size))  # of equal size, so that both are read
        if not size:
            pytest.skip("this file system gives folders no size")
    assert check(dataset) == "1 of 4 images repeat another of their class"
