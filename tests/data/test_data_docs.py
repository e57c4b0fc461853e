"""The recipes of docs/data.md, on small copies in the layouts that they name."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from dmlray.data import folds
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import csv_file, role_checks
from dmlray.data.datasets.train_test import Split
from tests.data.images import picture

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r"^```python (\w+)\n(.*?)^```$", PAGE, re.M | re.S))


def save(names: Iterable[str]) -> None:
    for seed, name in enumerate(names):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        picture(8, 8, seed).save(name)


def market() -> None:
    people = {
        "bounding_box_train": [(n, c) for n in ("0002", "0007", "0010", "0011") for c in (1, 3)],
        "bounding_box_test": [("-1", 1), ("0000", 1), ("0001", 1), ("0001", 2),
                              ("0003", 1), ("0003", 2)],
        "query": [("0001", 1), ("0003", 3)],
    }  # fmt: skip
    save(
        f"{folder}/{n}_c{c}s1_{len(folder)}_03.jpg" for folder in people for n, c in people[folder]
    )
    Path("bounding_box_test/Thumbs.db").write_text("x")


def vehicleid() -> None:
    Path("train_test_split").mkdir()
    images = [f"{n:07d}" for n in range(14)]
    save(f"image/{name}.jpg" for name in images)
    lines = [f"{name} {n // 2}" for n, name in enumerate(images[:8])]
    Path("train_test_split/train_list.txt").write_text("\n".join(lines) + "\n")
    lines = [f"{name} {100 + n // 3}" for n, name in enumerate(images[8:])]
    Path("train_test_split/test_list_800.txt").write_text("\n".join(lines) + "\n")


def products10k() -> None:
    shown = [(f"{n}.jpg", n // 2) for n in range(16)]
    asked = [(f"{n}.jpg", n) for n in range(7)]  # product 7 has no image in test/
    save([*(f"train/{name}" for name, _ in shown), *(f"test/{name}" for name, _ in asked)])
    lines = ["name,class,group", *(f"{name},{product},1" for name, product in shown)]
    Path("train.csv").write_text("\n".join(lines))
    lines = ["name,class,Usage", *(f"{name},{product},Public" for name, product in asked)]
    Path("test_kaggletest.csv").write_text("\n".join(lines))


def catalogue() -> None:
    save([f"catalogue/{n}-{view}.jpg" for n in range(100, 109) for view in ("front", "back")])
    save([f"customers/{n}-{i}.jpg" for n in range(100, 108) for i in (1, 2)])
    for seed, path in enumerate(sorted(Path().glob("c*/*.jpg"))):
        picture(8, 8, seed).save(path)


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    def follow(build: Callable[[], None], split: Split) -> Dataset:
        monkeypatch.chdir(tmp_path)
        build()
        exec(compile(RECIPES[build.__name__], "docs/data.md", "exec"), {})
        return csv_file.load(Path(f"{build.__name__}.csv"), split)

    return follow


def test_every_recipe_is_tried_here() -> None:
    assert set(RECIPES) == {"market", "vehicleid", "products10k", "catalogue"}


@pytest.mark.parametrize(
    ("build", "split", "train_classes", "remark"),
    [
        (market, "given", 4, "2 queries are searched for in 5 gallery images (1 of labels that no"
         " query has); images of equal label and group are not compared"),
        (vehicleid, "given", 4, "4 queries are searched for in 2 gallery images"),
        (products10k, "classes", 4, "5 queries are searched for in 8 gallery images"),
        (catalogue, "given", 4, "8 queries are searched for in 10 gallery images (2 of labels that"
         " no query has)"),
    ],
)  # fmt: skip
def test_recipes_give_the_roles_that_they_promise(
    listed: Callable[..., Dataset],
    build: Callable[[], None],
    split: Split,
    train_classes: int,
    remark: str,
) -> None:
    dataset = listed(build, split)
    assert dataset.train_classes == train_classes
    assert dataset.remarks == ()
    assert role_checks.remarks(dataset) == [remark], "every query has a match"
    folds.check(dataset, "kfold", 2)


def test_market_s_cameras_are_groups_and_its_junk_is_gone(
    listed: Callable[..., Dataset],
) -> None:
    dataset = listed(market, "given")
    assert not any("-1_" in file for file in dataset.files)
    assert dataset.roles is not None
    assert dataset.roles.groups is not None
    cameras = [file.split("_c")[-1][0] for file in dataset.files]
    same = np.equal.outer(cameras, cameras)
    assert np.array_equal(np.equal.outer(dataset.roles.groups, dataset.roles.groups), same)


def test_one_image_of_each_vehicle_is_the_gallery(listed: Callable[..., Dataset]) -> None:
    dataset = listed(vehicleid, "given")
    assert dataset.roles is not None
    tested = dataset.labels >= dataset.train_classes
    assert np.bincount(dataset.labels[tested & dataset.roles.gallery])[4:].tolist() == [1, 1]
    assert not (dataset.roles.gallery & dataset.roles.queries)[tested].any()
