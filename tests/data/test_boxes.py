"""Boxes of images: named, cut before they are resized, in every list and cache."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmlray.data import boxes
from dmlray.data.boxes import Box
from dmlray.data.cache.broken import leave_out
from dmlray.data.cache.decode import UnreadableImageError, decode, decoded_size
from dmlray.data.cache.image_cache import open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import csv_file
from dmlray.data.datasets.verify import verify
from dmlray.errors import DataError
from dmlray.inference.image_list import list_images
from tests.data.images import picture

HEADER = "path,label,x1,y1,x2,y2"
ROWS = ("a.png,a,0,0,10,12", "a.png,a,10,0,30,20", "b.png,b,1.0,2.2,8.9,9", "b.png,b,,,,")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for seed, name in enumerate(("a.png", "b.png")):
        picture(20, 30, seed).save(tmp_path / name)
    return tmp_path / "boxes.csv"


def load(source: Path, *rows: str, header: str = HEADER) -> Dataset:
    source.write_text("\n".join([header, *rows]))
    return csv_file.load(source)


def refused(source: Path, *rows: str, header: str = HEADER) -> str:
    with pytest.raises(DataError) as caught:
        load(source, *rows, header=header)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{source}: ")


@pytest.mark.parametrize("box", [None, Box(0, 0, 1, 1), Box(3, 40, 500, 60)])
@pytest.mark.parametrize("file", ["a.png", "a/b#c.png", "/ä #xywh=1,2.png"])
def test_a_name_gives_back_its_file_and_box(file: str, box: Box | None) -> None:
    assert boxes.split(boxes.named(file, box)) == (file, box)


def test_boxes_are_images_of_their_own(source: Path) -> None:
    dataset = load(source, *ROWS)
    assert dataset.files == (
        "a.png#xywh=0,0,10,12",
        "a.png#xywh=10,0,20,20",
        "b.png",
        "b.png#xywh=1,2,8,7",
    )
    assert dataset.classes == ("a", "b")
    assert dataset.remarks == ()
    assert verify("csv", source).is_sound
    (kept,) = leave_out(dataset, {dataset.files[0]: "broken"}).files[:1]
    assert kept == dataset.files[1]


@pytest.mark.parametrize("short_side", [None, 5])
def test_the_cache_holds_the_box_cut_before_it_is_resized(
    source: Path, short_side: int | None
) -> None:
    dataset = load(source, *ROWS)
    cache = open_cache(dataset, short_side)
    whole = Image.open(source.parent / "a.png")
    for row, (left, top, right, bottom) in enumerate([(0, 0, 10, 12), (10, 0, 30, 20)]):
        wanted = Image.fromarray(np.asarray(whole)[top:bottom, left:right])
        if short_side:
            scale = short_side / min(wanted.size)
            size = [int(scale * side) for side in wanted.size]
            wanted = wanted.resize((size[0], size[1]), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(cache[row], wanted)
        path = dataset.root / dataset.files[row]
        assert decoded_size(path, short_side) == cache[row].shape[:2]


def test_another_box_is_another_fingerprint_and_cache(source: Path) -> None:
    first = load(source, *ROWS)
    moved = load(source, ROWS[0], ROWS[1].replace("10,0,30", "9,0,29"), *ROWS[2:])
    assert first.fingerprint != moved.fingerprint
    assert open_cache(first, None).folder != open_cache(moved, None).folder


def test_boxes_are_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees: 20 x 30 as shown
    picture(20, 30).save(tmp_path / "turned.png", exif=exif)
    whole = decode(tmp_path / "turned.png", None)
    cut = decode(tmp_path / boxes.named("turned.png", Box(2, 21, 17, 30)), None)
    np.testing.assert_array_equal(cut, whole[21:30, 2:17])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,a,0,0,31,20", "line 2: box 0, 0, 31, 20 reaches outside of the image of 30 x 20 "),
        ("a.png,a,0,0,30,21", "line 2: box 0, 0, 30, 21 reaches outside of the image of 30 x 20 "),
        ("a.png,a,-1,0,30,20", "line 2: box -1, 0, 30, 20 reaches outside of the image"),
        ("a.png,a,5,0,5,20", "line 2: box 5, 0, 5, 20 has no area"),
        ("a.png,a,5,9,8,2", "line 2: box 5, 9, 8, 2 has no area"),
        ("a.png,a,5,,8,2", "line 2: box '5, , 8, 2': expected 4 numbers"),
        ("a.png,a,5,nan,8,2", "line 2: box '5, nan, 8, 2': expected 4 numbers"),
        ("a.png,a,5,0,inf,2", "line 2: box '5, 0, inf, 2': expected 4 numbers"),
        ("a.png,a,5,0,999999999.9,2", "line 2: box '5, 0, 999999999.9, 2': expected 4 numbers"),
        ("a.png,a,left,0,5,2", "line 2: box 'left, 0, 5, 2': expected 4 numbers"),
        (ROWS[1], "line 4: a.png#xywh=10,0,20,20 is on line 2 already"),
    ],
)
def test_what_is_no_box_of_the_image_is_named_with_its_line(
    source: Path, row: str, message: str
) -> None:
    assert refused(source, row, *ROWS).startswith(message)


@pytest.mark.parametrize("header", ["path,label,x1,y1,x2,other", "path,label,x1,a,b,c"])
def test_a_box_has_all_four_columns(source: Path, header: str) -> None:
    assert refused(source, *ROWS, header=header).startswith("line 1: columns of a box without y")


def test_a_name_of_a_box_outside_of_its_image_is_unreadable(source: Path) -> None:
    for read in (decode, decoded_size):
        with pytest.raises(UnreadableImageError, match=r"a\.png: .*reaches outside .* 30 x 20"):
            read(source.parent / "a.png#xywh=0,0,31,1", None)
        with pytest.raises(UnreadableImageError, match=r"a\.png: .*box 4, 4, 4, 9 has no area"):
            read(source.parent / "a.png#xywh=4,4,0,5", None)


def test_the_same_box_of_equal_files_contradicts_and_another_does_not(source: Path) -> None:
    (source.parent / "b.png").write_bytes((source.parent / "a.png").read_bytes())
    rows = ("a.png,a,0,0,9,9", "a.png,a,1,0,9,9", "b.png,b,2,0,9,9", "b.png,b,3,0,9,9")
    assert load(source, *rows).remarks == ()
    message = refused(source, *rows[:3], "b.png,b,0,0,9,9")
    assert message.startswith("line 2 (a.png#xywh=0,0,9,9) and ")


def test_images_to_embed_may_have_boxes(source: Path) -> None:
    source.write_text("\n".join([HEADER, *ROWS]))
    names = [Path(path).name for path in list_images([source])["path"].to_pylist()]
    assert names == ["a.png#xywh=0,0,10,12", "a.png#xywh=10,0,20,20", "b.png#xywh=1,2,8,7", "b.png"]
    source.write_text(f"{HEADER}\na.png,a,5,5,5,9")
    with pytest.raises(DataError, match="row 1: box 5, 5, 5, 9 has no area"):
        list_images([source])
