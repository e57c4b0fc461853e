"""Benchmarks in every supported layout."""

from pathlib import Path

import numpy as np
import pytest

from dmlray.data.dataset import Dataset
from dmlray.data.datasets import cars, cub, inshop, sop
from dmlray.data.datasets.published import retrieval_counts
from tests.data import benchmarks
from tests.data.benchmarks import LAYOUTS, Row, place, write

LOAD = {"cub": cub.load, "cars": cars.load, "sop": sop.load, "inshop": inshop.load}
BY_SIDES = ("class1", "class2", "class10", "class98", "class99", "class100")
CLASSES = {
    "cub": tuple(benchmarks.BIRDS.values()),
    "cars": tuple(benchmarks.CARS.values()),
    "sop": tuple(map(str, benchmarks.PRODUCTS)),
    "inshop": tuple(f"id_{number:08d}" for number in (1, 2, 10, 7982, 9, 100)),
}
COUNTS = {"cub": 200, "cars": 196, "sop": 22634, "inshop": 7982}


def by_class(dataset: Dataset) -> dict[str, list[str]]:
    files = np.array(dataset.files)
    return {c: files[dataset.labels == i].tolist() for i, c in enumerate(dataset.classes)}


@pytest.mark.parametrize("row", LAYOUTS, ids=lambda row: f"{row.name}-{row.author}")
def test_every_layout_of_the_authors_is_found_from_every_parent(tmp_path: Path, row: Row) -> None:
    folder = tmp_path / row.folder
    row.build(folder)
    dataset = LOAD[row.name](folder)
    alphabetical = (row.author, row.name) == ("DCML", "cars")
    if row.author == "DRML" and row.name != "sop":
        assert dataset.classes == BY_SIDES
    elif alphabetical:
        assert dataset.classes == tuple(sorted(c.replace("/", "-") for c in CLASSES["cars"]))
    else:
        assert dataset.classes == CLASSES[row.name]
    assert dataset.train_classes == (3 if alphabetical else 4)
    split = "so the first half trains" if alphabetical else "of which 4 train"
    assert dataset.remarks == (f"incomplete: 6 of {COUNTS[row.name]} classes, {split}",)
    assert dataset.name == row.name
    assert np.bincount(dataset.labels).tolist() == [2] * 6
    assert all((dataset.root / file).is_file() for file in dataset.files)
    for parent in [folder, *folder.parents][: len(Path(row.folder).parts) + 1]:
        again = LOAD[row.name](parent)
        assert (again.fingerprint, again.root) == (dataset.fingerprint, dataset.root)


@pytest.mark.parametrize("name", ["cub", "sop", "inshop"])
def test_layouts_of_the_same_images_have_one_fingerprint(tmp_path: Path, name: str) -> None:
    prints = set()
    for number, row in enumerate(LAYOUTS):
        if row.name == name and not (name == "cub" and row.author == "DRML"):
            row.build(tmp_path / str(number))
            prints.add(LOAD[name](tmp_path / str(number)).fingerprint)
    assert len(prints) == 1


def test_an_archive_unpacked_into_a_folder_of_its_name_is_found(tmp_path: Path) -> None:
    benchmarks.cub_lists(tmp_path / "CUB_200_2011" / "CUB_200_2011")
    assert len(cub.load(tmp_path)) == 12
    assert len(cub.load(tmp_path / "CUB_200_2011")) == 12


def test_classes_keep_their_own_images(tmp_path: Path) -> None:
    benchmarks.cub_lists(tmp_path)
    for label, files in by_class(cub.load(tmp_path)).items():
        assert {file.split("/")[0] for file in files} == {label}
    benchmarks.sop(tmp_path / "sop")
    for label, files in by_class(sop.load(tmp_path)).items():
        assert [file.split("/")[1] for file in files] == [
            f"{int(label):05d}_{i}.JPG" for i in (0, 1)
        ]
    benchmarks.cars_annotated(tmp_path / "cars196")
    files = by_class(cars.load(tmp_path))["Acura Integra Type R 2001"]
    assert files == ["car_ims/0060.jpg", "car_ims/0061.jpg"]


def test_whole_benchmarks_split_as_published_without_a_remark(tmp_path: Path) -> None:
    birds = [n for n in range(1, 201) for _ in range(58)] + [1] * 64 + [200] * 124
    rows = sorted(birds)
    write(tmp_path / "images.txt", (f"{i} {n:03d}.B/{i}.jpg" for i, n in enumerate(rows)))
    write(tmp_path / "image_class_labels.txt", (f"{i} {n}" for i, n in enumerate(rows)))
    found = cub.find(tmp_path).dataset
    assert (found.train_classes, len(found.classes), found.remarks) == (100, 200, ())
    for file, numbers, count in (
        ("Ebay_train.txt", range(1, 11319), 59551),
        ("Ebay_test.txt", range(11319, 22635), 60502),
    ):
        ids = (numbers[i % len(numbers)] for i in range(count))
        lines = (f"{i} {n} 1 x_final/{i}.JPG" for i, n in enumerate(ids))
        write(tmp_path / "sop" / file, [benchmarks.HEADER, *lines])
    found = sop.find(tmp_path).dataset
    assert (found.train_classes, len(found.classes), found.remarks) == (11318, 22634, ())


def test_whole_in_shop_has_its_queries_and_gallery(tmp_path: Path) -> None:
    counts = {"train": (25882, range(3997)), "query": (14218, range(3997, 7982))}
    counts["gallery"] = (12612, range(3997, 7982))
    rows = [
        f"img/MEN/{role}{i}.jpg id_{items[i % len(items)]:08d} {role}"
        for role, (count, items) in counts.items()
        for i in range(count)
    ]
    write(tmp_path / "list_eval_partition.txt", ["52712", " ".join(inshop.HEADER), *rows])
    dataset = inshop.find(tmp_path).dataset
    assert (dataset.train_classes, len(dataset.classes), dataset.remarks) == (3997, 7982, ())
    assert retrieval_counts(dataset) == (14218, 12612)
    assert dataset.roles is not None
    trains = dataset.labels < 3997
    assert dataset.roles.queries[trains].all()
    assert dataset.roles.gallery[trains].all()
    other = [row.replace(" query", " gallery") if "query0.jpg" in row else row for row in rows]
    write(tmp_path / "list_eval_partition.txt", other)
    assert inshop.find(tmp_path).dataset.remarks == (
        "14217 / 12613 queries / gallery images where In-Shop Clothes Retrieval has 14218 / 12612",
    )


def test_whole_cars_split_at_98_by_annotation_and_by_alphabet(tmp_path: Path) -> None:
    names = {n: f"Car {n:03d}" for n in range(1, 197)}
    benchmarks.cars_annotated(tmp_path / "a", names)
    benchmarks.cars_folders(tmp_path / "b", names)
    for folder in ("a", "b"):
        dataset = cars.load(tmp_path / folder)
        assert (dataset.train_classes, len(dataset.classes)) == (98, 196)
        assert dataset.remarks == (
            "196 / 196 images of train / test where Cars196 has 8054 / 8131",
        )


def test_classes_of_one_side_only_are_halved(tmp_path: Path) -> None:
    benchmarks.cub_folders(tmp_path, {n: f"{n:03d}.X" for n in (150, 110, 120)})
    dataset = cub.load(tmp_path)
    assert dataset.classes == ("110.X", "120.X", "150.X")
    assert dataset.train_classes == 2
    assert dataset.remarks == ("incomplete: 3 of 200 classes, so the first half trains",)


def test_more_classes_than_published_are_remarked(tmp_path: Path) -> None:
    benchmarks.sides(tmp_path, map(str, range(101)), map(str, range(101, 201)), images=1)
    (remark,) = cub.load(tmp_path).remarks
    assert remark == "101 / 100 classes of train / test where CUB-200-2011 has 100 / 100"


def test_annotations_order_class_folders_beside_them(tmp_path: Path) -> None:
    benchmarks.cars_folders(tmp_path)
    benchmarks.write_annotations(tmp_path)
    dataset = cars.load(tmp_path)
    assert dataset.classes == tuple(c.replace("/", "-") for c in CLASSES["cars"])
    assert dataset.train_classes == 4


def test_lists_written_on_windows_are_read(tmp_path: Path) -> None:
    benchmarks.cub_lists(tmp_path)
    expected = cub.load(tmp_path).fingerprint
    for name in ("images.txt", "image_class_labels.txt"):
        text = (tmp_path / name).read_text()
        (tmp_path / name).write_bytes(
            b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n"
        )
    assert cub.load(tmp_path).fingerprint == expected


def test_hidden_and_foreign_files_are_skipped(tmp_path: Path) -> None:
    benchmarks.cub_folders(tmp_path)
    expected = cub.load(tmp_path)
    name = benchmarks.BIRDS[1]
    place(tmp_path / "images", [f"{name}/._x.jpg", f".{name}/1.jpg", "notes/1.jpg"])
    write(tmp_path / "images" / name / "Thumbs.db", ["x"])
    (tmp_path / "images" / "003.Empty").mkdir()
    assert cub.load(tmp_path).files == expected.files


def test_remarks_do_not_change_the_fingerprint(tmp_path: Path) -> None:
    benchmarks.cub_folders(tmp_path)
    dataset = cub.load(tmp_path)
    silent = Dataset(dataset.name, dataset.root, dataset.files, dataset.labels, dataset.classes, 4)
    assert dataset.remarks
    assert not silent.remarks
    assert dataset.fingerprint == silent.fingerprint


@pytest.mark.parametrize("kit", [".", "devkit", "car_devkit/devkit"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("parent", [".", "stanford_cars"])
def test_halves_with_a_development_kit_are_split_by_class(
    tmp_path: Path, kit: str, nested: bool, parent: str
) -> None:
    benchmarks.cars_kit(tmp_path / parent, kit, nested)
    dataset = cars.load(tmp_path)
    assert dataset.classes == tuple(benchmarks.CARS.values())
    assert dataset.train_classes == 4
    assert np.bincount(dataset.labels).tolist() == [2] * 6
    number = {name: n for n, name in benchmarks.CARS.items()}
    rank = {n: i for i, n in enumerate(sorted(number.values(), key=str), 1)}
    for label, files in by_class(dataset).items():
        assert {Path(file).name for file in files} == {f"{rank[number[label]]:05d}.jpg"}
        assert {file.split("/")[0] for file in files} == {"cars_train", "cars_test"}


def test_annotated_images_in_a_folder_of_the_same_name_are_found(tmp_path: Path) -> None:
    benchmarks.cars_annotated(tmp_path / "a")
    benchmarks.write_annotations(tmp_path / "b")
    (tmp_path / "b" / "car_ims").mkdir()
    (tmp_path / "a" / "car_ims").rename(tmp_path / "b" / "car_ims" / "car_ims")
    assert len(cars.load(tmp_path / "b")) == 12


def test_copies_of_a_classifier_are_split_by_class(tmp_path: Path) -> None:
    benchmarks.classifier(tmp_path / "cub", benchmarks.BIRDS.values())
    birds = cub.load(tmp_path / "cub")
    assert (birds.classes, birds.train_classes) == (CLASSES["cub"], 4)
    names = [f"Car {n:03d}" for n in range(1, 197)]
    benchmarks.classifier(tmp_path / "car_data" / "car_data", names)
    models = cars.load(tmp_path)
    assert (models.classes, models.train_classes) == (tuple(names), 98)
    for dataset in (birds, models):
        assert {tuple(sorted(f.split("/")[0] for f in files)) for files in
                by_class(dataset).values()} == {("test", "train")}  # fmt: skip
