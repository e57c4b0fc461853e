"""Verification of data sets."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlray.data.cache import cache_build
from dmlray.data.datasets import cub, registry
from dmlray.data.datasets.verify import verify, verify_dataset
from dmlray.errors import ConfigError, DataError
from tests.data import benchmarks
from tests.data.benchmarks import place
from tests.data.images import picture


def test_a_whole_benchmark_is_well(tmp_path: Path) -> None:
    counts = dict.fromkeys(range(1, 201), 58) | {1: 58 + 64, 200: 58 + 124}
    place(tmp_path / "images", (f"{n:03d}.B/{i}.jpg" for n in counts for i in range(counts[n])))
    steps: list[tuple[int, int]] = []
    found = verify("cub", tmp_path, lambda done, count: steps.append((done, count)))
    assert found.is_sound
    assert found.problems == ()
    assert found.classes == found.expected_classes == (100, 100)
    assert found.images == found.expected_images == (5864, 5924)
    assert (found.layout, found.class_order) == ("class folders", "official class numbers")
    assert found.fingerprint == cub.load(tmp_path).fingerprint
    assert steps == sorted(steps)
    assert steps[-1] == (11788, 11788)


@pytest.mark.parametrize("row", benchmarks.LAYOUTS, ids=lambda row: f"{row.name}-{row.author}")
def test_an_incomplete_copy_is_not_well(tmp_path: Path, row: benchmarks.Row) -> None:
    row.build(tmp_path / row.folder)
    found = verify(row.name, tmp_path)
    assert not found.is_sound
    assert sum(found.classes) == 6
    assert sum(found.images) == 12
    (problem,) = found.problems
    assert problem.startswith("incomplete: 6 of ")


def test_missing_and_unreadable_files_are_named(tmp_path: Path) -> None:
    benchmarks.sop(tmp_path)
    gone, empty, text = (
        tmp_path / "bicycle_final" / f"{n}.JPG" for n in ("00001_0", "00002_0", "00002_1")
    )
    for path in (gone, empty, text):
        path.unlink()
    empty.touch()
    text.write_text("no image")
    found = verify("sop", tmp_path)
    assert found.missing == ("bicycle_final/00001_0.JPG",)
    assert found.unreadable == ("bicycle_final/00002_0.JPG", "bicycle_final/00002_1.JPG")
    assert found.fingerprint is None
    assert found.problems[1:] == (
        "1 missing images, first bicycle_final/00001_0.JPG",
        "2 unreadable images, first bicycle_final/00002_0.JPG",
    )


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """Four classes of two images, all different."""
    for seed, name in enumerate(f"{label}/{n}.png" for label in "abcd" for n in (1, 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(12, 10 + seed, seed).save(tmp_path / name)
    return tmp_path


def test_an_image_too_large_to_decode_is_unreadable(plain: Path) -> None:
    found = verify("folder", plain, max_pixels=12 * 16)
    assert found.reasons == {  # 12 x 17
        "d/2.png": "has more than 192 pixels (17 x 12): data.max_megapixels allows more"
    }
    assert verify("folder", plain).is_sound


def flat(path: Path) -> None:
    Image.fromarray(np.ones((9, 9), np.float32)).save(path, "tiff")


def wrong_checksum(path: Path) -> None:
    picture(40, 50).save(path, "png")
    content = bytearray(path.read_bytes())
    content[content.index(b"IEND") - 5] ^= 1  # the last byte of the pixels' checksum
    path.write_bytes(content)


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut.jpg": (lambda path: cut(path, "jpeg"), "image file is truncated"),
    "cut.webp": (lambda path: cut(path, "webp"), ""),
    "checksum.png": (wrong_checksum, "broken PNG file"),
    "empty.png": (Path.touch, "the file is empty"),
    "postscript.png": (
        lambda path: picture(9, 9).save(path, "eps"),
        "its content has no known image format",
    ),
    "text.jpg": (lambda path: path.write_text("<html>"), "its content has no known image format"),
    "flat.png": (flat, "all its values are 1, so there is no range to scale by"),
    "large.png": (
        lambda path: Image.new("1", (20_000, 9000)).save(path, "png"),
        "has more than 178,956,970 pixels",
    ),
}


def cut(path: Path, kind: str) -> None:
    picture(40, 50).save(path, kind)
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize("processes", [1, 2])
def test_one_of_each_fault_is_named_in_one_run(
    plain: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_build, "cores", lambda: processes)
    monkeypatch.setattr(cache_build, "FEW", 0)
    for name, (make, _) in FAULTS.items():
        make(plain / "a" / name)
    (plain / "a" / "gone.png").symlink_to("nowhere")
    steps: list[tuple[int, int]] = []
    found = verify("folder", plain, lambda done, count: steps.append((done, count)))
    assert not found.is_sound
    assert found.missing == ("a/gone.png",)
    assert found.unreadable == tuple(f"a/{name}" for name in sorted(FAULTS))
    for name, (_, reason) in FAULTS.items():
        assert reason in found.reasons[f"a/{name}"]
    assert f"{len(FAULTS)} unreadable images, first a/checksum.png" in found.problems
    assert steps == sorted(steps)
    assert steps[-1] == (8 + len(FAULTS), 8 + len(FAULTS))


def test_unusual_depths_are_noted(plain: Path) -> None:
    deep = np.asarray(picture(9, 9).convert("L"), np.float32)
    Image.fromarray(deep).save(plain / "a" / "3.png", "tiff")
    found = verify("folder", plain)
    assert found.is_sound
    assert found.notes == (
        "1 of 9 images have float or 32-bit values, each file's scaled by its own range,"
        " first a/3.png",
    )


def test_any_data_set_is_verified_without_expectations(plain: Path) -> None:
    found = verify("folder", plain)
    assert found == verify_dataset(registry.load("folder", plain))
    assert found.is_sound
    assert found.expected_classes is found.expected_images is None
    assert (found.classes, found.images, found.name) == ((2, 2), (4, 4), "folder")


def test_remarks_on_own_images_are_notes(plain: Path) -> None:
    dataset = replace(registry.load("folder", plain), remarks=("drawn by hand",))
    found = verify_dataset(dataset)
    assert (found.notes, found.problems, found.is_sound) == (("drawn by hand",), (), True)


def test_a_given_split_is_verified(plain: Path) -> None:
    for side, labels in (("train", "ab"), ("test", "cd"), ("val", "")):
        (plain / side).mkdir()
        for label in labels:
            (plain / label).rename(plain / side / label)
    found = verify("folder", plain, split="given")
    assert found.is_sound
    assert (found.classes, found.images) == ((2, 2), (4, 4))
    with pytest.raises(ConfigError, match=r"^data\.split: given is not for cub"):
        verify("cub", plain, split="given")


def test_what_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        verify("cars", tmp_path)
    with pytest.raises(ConfigError, match=r"^data\.root"):
        verify("cars", None)
    with pytest.raises(ConfigError, match="unknown data set"):
        verify("cup", tmp_path)
