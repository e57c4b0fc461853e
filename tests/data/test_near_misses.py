"""Incomplete copies of benchmarks are refused in one sentence."""

import re
import shutil
from pathlib import Path

import pytest

from dmlray.data.datasets import cars, cub, inshop, sop
from dmlray.data.datasets.spec import specs
from dmlray.errors import ConfigError, DataError
from tests.data import benchmarks
from tests.data.benchmarks import LAYOUTS, Row, place, write
from tests.data.rights import without_rights

LOAD = {"cub": cub.load, "cars": cars.load, "sop": sop.load, "inshop": inshop.load}


def refusal(name: str, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        LOAD[name](root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_class_folders_whose_alphabet_contradicts_the_annotations_are_refused(
    tmp_path: Path,
) -> None:
    benchmarks.cars_folders(tmp_path)
    swapped = dict(zip(benchmarks.CARS, reversed(benchmarks.CARS.values()), strict=True))
    benchmarks.write_annotations(tmp_path, swapped)
    message = refusal("cars", tmp_path)
    assert (
        "cars_annos.mat: class 'AM General Hummer SUV 2000' is a test class by its id 196"
        in message
    )


def test_class_folder_that_the_annotations_do_not_know_is_refused(tmp_path: Path) -> None:
    benchmarks.cars_folders(tmp_path, {**benchmarks.CARS, 7: "Trabant 601"})
    benchmarks.write_annotations(tmp_path)
    assert "has no class 'Trabant 601'" in refusal("cars", tmp_path)


@pytest.mark.parametrize(
    ("name", "build", "lost", "message"),
    [
        (
            "cub",
            "cub_lists",
            "images.txt",
            "CUB_200_2011 with image_class_labels.txt but images.txt is",
        ),
        ("cub", "cub_lists", "image_class_labels.txt", "but image_class_labels.txt is missing"),
        (
            "cars",
            "cars_annotated",
            "cars_annos.mat",
            "found car_ims/ but cars_annos.mat is missing",
        ),
        ("cars", "cars_annotated", "car_ims", "found cars_annos.mat but car_ims/ is missing"),
        ("sop", "sop", "Ebay_test.txt", "found Ebay_train.txt but Ebay_test.txt is missing"),
        ("sop", "sop", "Ebay_train.txt", "found Ebay_test.txt but Ebay_train.txt is missing"),
        (
            "sop",
            "sop",
            "bicycle_final",
            "6 of 12 listed images are missing, first bicycle_final/00001_0",
        ),
        ("sop", "sop", "chair_final/00010_1.JPG", "1 of 12 listed images are missing, first chair"),
        ("cub", "cub_lists", "images", "12 of 12 listed images are missing, first 001.Bird"),
    ],
)
def test_near_misses_say_what_is_missing(
    tmp_path: Path, name: str, build: str, lost: str, message: str
) -> None:
    folder = tmp_path / next(row.folder for row in LAYOUTS if row.name == name)
    getattr(benchmarks, build)(folder)
    gone = folder / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert message in refusal(name, tmp_path)


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("devkit/cars_train_annos.mat", "found cars_train/ but cars_train_annos.mat is missing"),
        ("cars_test_annos_withlabels.mat", "but cars_test_annos_withlabels.mat is missing"),
        ("cars_test", "found cars_train/ but cars_test/ is missing"),
        ("cars_train/00003.jpg", "1 of 12 listed images are missing, first cars_train/00003.jpg"),
    ],
)
def test_halves_of_cars_say_what_is_missing(tmp_path: Path, lost: str, message: str) -> None:
    benchmarks.cars_kit(tmp_path)
    benchmarks.write_annotations(tmp_path)  # for other images: not a replacement
    gone = tmp_path / lost
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    assert message in refusal("cars", tmp_path)


def test_copies_of_a_classifier_that_cannot_be_split_are_refused(tmp_path: Path) -> None:
    benchmarks.classifier(tmp_path / "birds", ["Albatross", "Auklet"])
    assert "class 'Albatross' has no official number" in refusal("cub", tmp_path / "birds")
    benchmarks.classifier(tmp_path / "cars", [f"Car {n:03d}" for n in range(196)])
    assert "those of Cars196, not of CUB-200-2011" in refusal("cub", tmp_path / "cars")


@pytest.mark.parametrize("target", ["nowhere.jpg", "self.jpg"])
@pytest.mark.parametrize("build", ["cub_lists", "cub_folders"])
def test_links_to_nothing_are_missing(tmp_path: Path, build: str, target: str) -> None:
    getattr(benchmarks, build)(tmp_path)
    file = cub.load(tmp_path).files[3]
    path = tmp_path / "images" / file
    path.unlink()
    path.symlink_to(path.name if target == "self.jpg" else target)
    message = f"1 of 12 listed images are missing, first {file} (a broken link)"
    assert message in refusal("cub", tmp_path)


@pytest.mark.parametrize("mode", [0, 0o111, 0o444])
@pytest.mark.parametrize("name", ["", "train", "test", "train/a"])
def test_folders_that_cannot_be_read_are_named(shared: Path, name: str, mode: int) -> None:
    benchmarks.sides(shared, ["a", "b"], ["c", "d"])
    path = shared / name
    path.chmod(mode)
    with without_rights():
        message = refusal("cub", shared)
    path.chmod(0o755)
    assert re.fullmatch(rf"{path}(/.*)?: cannot be (read|listed): Permission denied\.", message)


@pytest.mark.parametrize("side", ["train", "test"])
def test_one_side_alone_is_refused(tmp_path: Path, side: str) -> None:
    benchmarks.sides(tmp_path / "cub200", ["a", "b"], ["c", "d"])
    shutil.rmtree(tmp_path / "cub200" / side)
    assert f"but {side}/ has no class folders" in refusal("cub", tmp_path)


def test_classes_on_both_sides_are_refused(tmp_path: Path) -> None:
    benchmarks.sides(tmp_path, ["a", "b", "c"], ["b", "c"])  # a split for classification
    for name in ("cub", "cars"):
        assert "share 2 classes, first 'b'" in refusal(name, tmp_path)
    benchmarks.sop(tmp_path / "sop")
    write(tmp_path / "sop" / "Ebay_test.txt", benchmarks.product_rows([2, 22634]))
    assert "share 1 classes, first 2." in refusal("sop", tmp_path)


@pytest.mark.parametrize("row", LAYOUTS, ids=lambda row: f"{row.name}-{row.author}")
def test_another_data_set_is_not_mistaken(tmp_path: Path, row: Row) -> None:
    folder = tmp_path / row.folder
    row.build(folder)
    titles = {name: spec.benchmark.title for name, spec in specs().items() if spec.benchmark}
    for name in set(LOAD) - {row.name}:
        if row.author == "DRML" and row.name != "sop" and name in ("cub", "cars"):
            continue  # class1, class2, ...: only complete copies can be told apart
        message = refusal(name, folder)
        assert titles[name] in message
        if (row.name, row.author) not in (("cars", "DCML"), ("cub", "DRML"), ("cars", "DRML")):
            assert f"holds {titles[row.name]}, not {titles[name]}" in message


def test_whole_sides_of_another_data_set_are_told_by_their_number(tmp_path: Path) -> None:
    names = [f"class{n}" for n in range(200)]
    benchmarks.sides(tmp_path / "cub", names[:100], names[100:], images=1)
    benchmarks.sides(tmp_path / "cars", names[:98], names[98:196], images=1)
    assert cub.load(tmp_path / "cub").train_classes == 100
    assert cars.load(tmp_path / "cars").train_classes == 98
    assert "those of Cars196, not of CUB-200-2011" in refusal("cub", tmp_path / "cars")
    assert "those of CUB-200-2011, not of Cars196" in refusal("cars", tmp_path / "cub")


@pytest.mark.parametrize("name", LOAD)
def test_roots_without_a_layout_say_so(tmp_path: Path, name: str) -> None:
    assert "nowhere: no such folder" in refusal(name, tmp_path / "nowhere")
    assert "the folder is empty" in refusal(name, tmp_path)
    place(tmp_path, ["a.jpg", "b/c.jpg"])
    assert re.search("holds no layout of .* Expected ", refusal(name, tmp_path))
    assert "no such folder" in refusal(name, tmp_path / "a.jpg")


def test_a_folder_of_the_right_name_with_nothing_known_in_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "CUB_200_2011" / "bounding_boxes").mkdir(parents=True)
    assert "found CUB_200_2011 but not in it images.txt" in refusal("cub", tmp_path)
    assert "found CUB-200-2011 but not Cars196" in refusal("cars", tmp_path)


@pytest.mark.parametrize("name", LOAD)
def test_root_must_be_given(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.root: data set '{name}' needs the folder"):
        LOAD[name](None)


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("image_class_labels.txt", "1 one", "line 1: expected a whole number, got 'one'"),
        ("image_class_labels.txt", "1 2", "line 1: class 2, but images.txt has 001.Bird"),
        ("image_class_labels.txt", "99 1", "line 1: image 99 is not in images.txt"),
        ("image_class_labels.txt", "1 1", "11 images have no class, first 2 (001.Bird"),
        ("images.txt", "\x00\xff", "line 1: expected 2 columns"),
        ("images.txt", "", "image 1 is not in images.txt"),
    ],
)
def test_damaged_lists_of_cub_are_refused(
    tmp_path: Path, file: str, line: str, message: str
) -> None:
    benchmarks.cub_lists(tmp_path)
    write(tmp_path / file, [line])
    assert message in refusal("cub", tmp_path)


def test_damaged_lists_of_sop_are_refused(tmp_path: Path) -> None:
    benchmarks.sop(tmp_path)
    write(tmp_path / "Ebay_train.txt", [benchmarks.HEADER, "1 x 1 a_final/1.JPG"])
    assert "Ebay_train.txt: line 2: expected a whole number, got 'x'" in refusal("sop", tmp_path)
    write(tmp_path / "Ebay_train.txt", ["https://example.org/1.JPG"])
    assert "Ebay_train.txt: line 1: expected 4 columns" in refusal("sop", tmp_path)
    (tmp_path / "Ebay_train.txt").write_bytes(bytes(range(256)))
    assert "Ebay_train.txt: line 1: expected" in refusal("sop", tmp_path)


@pytest.mark.parametrize("content", [b"", b"no matlab file at all", None])
def test_damaged_annotations_are_refused(tmp_path: Path, content: bytes | None) -> None:
    benchmarks.cars_annotated(tmp_path)
    path = tmp_path / "cars_annos.mat"
    path.write_bytes(path.read_bytes()[:400] if content is None else content)
    assert "cars_annos.mat: not readable as annotations of Cars196" in refusal("cars", tmp_path)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    benchmarks.cub_folders(tmp_path, {1: "001.Only"})
    assert "1 classes with images. Expected at least 2" in refusal("cub", tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("query\n", "val\n", "line 11: 'val' is not allowed. Allowed: train, query, gallery"),
        ("id_00000002/01", "id_00000002/02", "line 6: img/WOMEN/Tees/id_00000002/02_1_front.jpg is"
         " on line 5 already"),
        ("id_00000100 gallery", "id_00000100 train", "item id_00000100 is in training and in test"),
        ("id_00000002 train", "shirt train", "item 'shirt'. Expected names such as id_00000001"),
        (" train\n", "\n", "line 3: expected 3 columns"),
    ],
)  # fmt: skip
def test_damaged_lists_of_in_shop_are_refused(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    benchmarks.inshop(tmp_path)
    path = tmp_path / "Eval" / "list_eval_partition.txt"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1 if "train" in old else -1))
    assert said in refusal("inshop", tmp_path)


def test_a_copy_of_in_shop_without_images_names_the_first(tmp_path: Path) -> None:
    benchmarks.inshop(tmp_path)
    shutil.rmtree(tmp_path / "Img")
    assert "12 of 12 listed images are missing, first img/" in refusal("inshop", tmp_path)
