"""Equal fingerprints mean equal images."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dmlray.data.cache import content
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.folder import read
from dmlray.errors import DataError

LARGE = 4 * content.WHOLE


def again(dataset: Dataset) -> Dataset:
    return replace(dataset)


def change(path: Path, at: int) -> None:
    """Change one byte, but neither size nor modification time."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=times)


@pytest.mark.parametrize("size", [1, 300, 70_000, content.WHOLE])
@pytest.mark.parametrize("where", [0, 0.3, 0.5, 0.999])
def test_one_byte_of_a_usual_file_is_enough(dataset: Dataset, size: int, where: float) -> None:
    path = dataset.root / dataset.files[4]
    path.write_bytes(bytes(size))
    before = dataset.fingerprint
    change(path, int(where * size))
    assert again(dataset).fingerprint != before


@pytest.mark.parametrize("share", [0, 0.2, 0.5, 0.8, 0.999])
def test_a_change_of_a_tenth_of_a_large_file_is_enough(dataset: Dataset, share: float) -> None:
    path = dataset.root / dataset.files[4]
    path.write_bytes(bytes(LARGE))
    before = dataset.fingerprint
    with path.open("r+b") as file:
        file.seek(int(share * LARGE))
        file.write(b"x" * min(LARGE // 10, LARGE - file.tell()))
    assert path.stat().st_size == LARGE
    assert again(dataset).fingerprint != before


def test_the_time_counts_for_the_cache_and_not_for_the_fingerprint(dataset: Dataset) -> None:
    path = dataset.root / dataset.files[4]
    fingerprint, modified = dataset.fingerprint, dataset.modified
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert again(dataset).fingerprint == fingerprint
    assert again(dataset).modified != modified


def test_a_copy_elsewhere_has_the_same_fingerprint(dataset: Dataset, tmp_path: Path) -> None:
    shutil.copytree(dataset.root, tmp_path / "copy", copy_function=shutil.copyfile)
    assert read("folder", tmp_path / "copy").fingerprint == dataset.fingerprint


def test_other_names_and_other_classes_have_another_fingerprint(dataset: Dataset) -> None:
    names = ("x", *dataset.classes[1:])
    assert replace(dataset, classes=names).fingerprint != dataset.fingerprint
    files = (*dataset.files[1:], dataset.files[0])
    assert replace(dataset, files=files).fingerprint != dataset.fingerprint


def test_the_fingerprint_that_older_runs_hold_is_recognised(dataset: Dataset) -> None:
    """Version 0.1.0 hashed (relative path, class, size in bytes)."""
    for row, file in enumerate(dataset.files):
        (dataset.root / file).write_bytes(bytes([row]) * (row + 1))
    assert dataset.has_fingerprint("6552a21f5fb42e9e")
    assert dataset.has_fingerprint(dataset.fingerprint)
    assert not dataset.has_fingerprint("0123456789abcdef")


@pytest.mark.parametrize("damage", ["gone", "folder", "pipe"])
def test_all_files_that_cannot_be_read_are_listed(dataset: Dataset, damage: str) -> None:
    for row in (1, 5):
        path = dataset.root / dataset.files[row]
        path.unlink()
        if damage != "gone":
            path.mkdir() if damage == "folder" else os.mkfifo(path)
    with pytest.raises(DataError, match="photos: 2 of 19 images cannot be read") as raised:
        _ = dataset.fingerprint
    assert all(f"{dataset.files[row]}: cannot be read" in str(raised.value) for row in (1, 5))
