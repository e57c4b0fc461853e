"""Is a data set what its name promises."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from dmlray.data import catalogue, cub
from dmlray.data.verify import verify, verify_dataset
from dmlray.errors import ConfigError, DataError
from tests.data import benchmarks
from tests.data.benchmarks import place
from tests.data.pictures import picture


def test_a_whole_benchmark_is_well(tmp_path: Path) -> None:
    counts = dict.fromkeys(range(1, 201), 58) | {1: 58 + 64, 200: 58 + 124}
    place(tmp_path / "images", (f"{n:03d}.B/{i}.jpg" for n in counts for i in range(counts[n])))
    steps: list[tuple[int, int]] = []
    found = verify("cub", tmp_path, lambda done, count: steps.append((done, count)))
    assert found.well and found.problems == ()
    assert found.classes == found.expected_classes == (100, 100)
    assert found.images == found.expected_images == (5864, 5924)
    assert (found.layout, found.class_order) == ("class folders", "official class numbers")
    assert found.fingerprint == cub.load(tmp_path).fingerprint
    assert steps == sorted(steps) and steps[-1] == (11788, 11788)


@pytest.mark.parametrize("row", benchmarks.LAYOUTS, ids=lambda row: f"{row.name}-{row.author}")
def test_an_incomplete_copy_is_not_well(tmp_path: Path, row: benchmarks.Row) -> None:
    row.build(tmp_path / row.folder)
    found = verify(row.name, tmp_path)
    assert not found.well
    assert sum(found.classes) == 6 and sum(found.images) == 12
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
    """Four classes of two images, no two of which are alike."""
    for seed, name in enumerate(f"{label}/{n}.png" for label in "abcd" for n in (1, 2)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(12, 10 + seed, seed).save(tmp_path / name)
    return tmp_path


def test_an_image_too_large_to_decode_is_unreadable(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 12 * 16)
    assert verify("folder", plain).unreadable == ("d/2.png",)  # 12 x 17


def test_any_data_set_is_verified_without_expectations(plain: Path) -> None:
    found = verify("folder", plain)
    assert found == verify_dataset(catalogue.load("folder", plain))
    assert found.well
    assert found.expected_classes is found.expected_images is None
    assert (found.classes, found.images, found.name) == ((2, 2), (4, 4), "folder")


def test_remarks_on_own_images_are_notes(plain: Path) -> None:
    dataset = replace(catalogue.load("folder", plain), remarks=("drawn by hand",))
    found = verify_dataset(dataset)
    assert (found.notes, found.problems, found.well) == (("drawn by hand",), (), True)


def test_a_given_split_is_verified(plain: Path) -> None:
    for side, labels in (("train", "ab"), ("test", "cd"), ("val", "")):
        (plain / side).mkdir()
        for label in labels:
            (plain / label).rename(plain / side / label)
    found = verify("folder", plain, split="given")
    assert found.well and (found.classes, found.images) == ((2, 2), (4, 4))
    with pytest.raises(ConfigError, match=r"^data\.split: given is not for cub"):
        verify("cub", plain, split="given")


def test_what_cannot_be_listed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        verify("cars", tmp_path)
    with pytest.raises(ConfigError, match=r"^data\.root"):
        verify("cars", None)
    with pytest.raises(ConfigError, match="unknown data set"):
        verify("cup", tmp_path)
