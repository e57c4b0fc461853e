"""Roles and groups of images, through listing, folds and what is left without broken images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmlray.data import folds, unseen
from dmlray.data.cache.broken import leave_out
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import csv_file, folder, role_checks
from dmlray.data.datasets.train_test import Split
from dmlray.data.datasets.verify import verify
from dmlray.data.roles import ROLES, Roles, roles_of, with_match
from dmlray.errors import ConfigError, DataError
from tests.data.images import picture

HEADER = "path,label,split,role,group"
ROWS = (  # two classes train, two are searched for, one distracts
    "0.png,a,train,query,", "1.png,a,train,gallery,", "2.png,b,train,,", "3.png,b,train,,",
    "4.png,c,test,query,front", "5.png,c,test,gallery,front", "6.png,c,test,Gallery,side",
    "7.png,d,test,both,front", "8.png,d,test,both,front", "9.png,x,test,gallery,side",
)  # fmt: skip
QUERIES = (0, 2, 3, 4, 7, 8)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for number in range(len(ROWS)):
        picture(8, 8, number).save(tmp_path / f"{number}.png")
    return tmp_path / "images.csv"


def load(source: Path, *lines: str, split: Split = "given") -> Dataset:
    source.write_text("\n".join(lines))
    return csv_file.load(source, split)


def looped(labels: np.ndarray, roles: Roles) -> list[bool]:
    """The definition of RetrievalTask, one pair at a time."""
    every, found = range(len(labels)), []
    for query in every:
        matches = [
            image
            for image in every
            if roles.gallery[image] and image != query and labels[image] == labels[query]
            and not (roles.groups is not None and roles.groups[image] == roles.groups[query])
        ]  # fmt: skip
        found.append(bool(roles.queries[query] and matches))
    return found


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_matches_are_those_of_a_loop_over_pairs(seed: int, grouped: bool) -> None:
    rng = np.random.default_rng(seed)
    labels, names = rng.integers(0, 12, 40), [ROLES[i] for i in rng.integers(0, 3, 40)]
    groups = [["", "left", "right"][i] for i in rng.integers(0, 3, 40)]
    roles = roles_of(names, groups if grouped else None)
    assert with_match(labels, roles).tolist() == looped(labels, roles)
    assert len(set(with_match(labels, roles))) == 2


@pytest.mark.parametrize("split", ["all", "classes"])
def test_a_training_image_needs_no_role_in_any_split(source: Path, split: Split) -> None:
    """The rows that train are those of the column split, also where it divides nothing."""
    rows = [
        "path,label,split,role", "0.png,a,test,query", "1.png,a,test,gallery", "2.png,b,train,",
        "3.png,b,train,", "4.png,c,test,query", "5.png,c,test,gallery",
    ]  # fmt: skip
    found = load(source, *rows, split=split)
    assert found.roles is not None
    both = {found.files[row] for row in np.flatnonzero(found.roles.queries & found.roles.gallery)}
    assert both == {"2.png", "3.png"}
    rows[2] = "1.png,a,test,"
    with pytest.raises(DataError, match="line 3: role '' is not allowed"):
        load(source, *rows, split=split)


def test_a_csv_file_gives_roles_and_groups(source: Path) -> None:
    dataset = load(source, HEADER, *ROWS)
    roles = dataset.roles
    assert roles is not None
    assert roles.groups is not None
    number = {file: row for row, file in enumerate(dataset.files)}
    order = [number[f"{n}.png"] for n in range(len(ROWS))]
    asked = [number for number, row in zip(order, range(len(ROWS)), strict=True) if row in QUERIES]
    assert np.flatnonzero(roles.queries).tolist() == sorted(asked)
    assert np.flatnonzero(~roles.gallery).tolist() == sorted([number["0.png"], number["4.png"]])
    groups = roles.groups[order].tolist()
    assert len(set(groups[:4])) == 4, "an empty group is shared with no image"
    assert groups[4] == groups[5] == groups[7] == groups[8]
    assert groups[6] == groups[9] != groups[4]
    assert dataset.remarks == ()
    assert role_checks.remarks(dataset) == [
        "3 queries are searched for in 5 gallery images (1 of labels that no query has); images of"
        " equal label and group are not compared",
        "2 of 3 test queries have no match in the gallery and do not count, first 7.png",
    ]
    assert verify("csv", source, split="given").notes[:2] == tuple(role_checks.remarks(dataset))


def test_roles_are_in_the_fingerprint_and_others_keep_theirs(source: Path) -> None:
    plain = load(source, "path,label,split", *(",".join(row.split(",")[:3]) for row in ROWS[:9]))
    assert plain.roles is None
    with_roles = load(source, HEADER, *ROWS[:9])
    other = load(source, HEADER, *ROWS[:8], ROWS[8].replace("both", "query"))
    regrouped = load(source, HEADER, *ROWS[:8], ROWS[8].replace("front", "back"))
    prints = {dataset.fingerprint for dataset in (plain, with_roles, other, regrouped)}
    assert len(prints) == 4
    assert replace(with_roles, roles=None).fingerprint == plain.fingerprint


def pairs(*names: str) -> Dataset:
    """Six classes of two images, four train; all images not in `names` (of roles) are both."""
    roles = roles_of([*names, *["both"] * (12 - len(names))])
    files = tuple(f"{number}.png" for number in range(12))
    labels = np.repeat(np.arange(6), 2)
    return Dataset("toy", Path("/nowhere"), files, labels, tuple("abcdef"), 4, roles=roles)


def test_subsets_and_folds_keep_the_roles_of_their_classes() -> None:
    dataset = pairs(*["query", "gallery"] * 6)
    for train, held_out in folds.split(dataset, "seeded", 2):
        assert not set(train.classes) & set(held_out.classes)
        assert held_out.roles is not None
        assert held_out.roles.queries.tolist() == [True, False] * 2
        assert held_out.roles.gallery.tolist() == [False, True] * 2
    test = unseen.test_subset(dataset)
    assert test.roles is not None
    assert test.roles.queries.tolist() == [True, False] * 2


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["query"] * 4, "fold 0 has no query with a match in its gallery ('a', 'b')"),
        (["both", "both", "query", "query"], "fold 0 has one class in its gallery ('a')"),
    ],
)
def test_folds_that_cannot_be_scored_are_refused(names: list[str], said: str) -> None:
    folds.check(pairs(), "kfold", 2)
    assert folds.suitable(pairs(), "kfold") == [2]
    assert not folds.suitable(pairs(*names), "kfold")
    with pytest.raises(ConfigError) as caught:
        folds.check(pairs(*names), "kfold", 2)
    assert said in str(caught.value)


def test_broken_images_leave_with_their_roles(source: Path) -> None:
    dataset = load(source, HEADER, *ROWS)
    sound = leave_out(dataset, {"5.png": "is empty", "7.png": "is empty"})
    assert sound.roles is not None
    assert dataset.roles is not None
    kept = [row for row, file in enumerate(dataset.files) if file not in ("5.png", "7.png")]
    assert sound.roles.queries.tolist() == dataset.roles.queries[kept].tolist()
    assert sound.roles.groups is not None
    assert len(sound.roles.groups) == len(sound)
    assert "1 of 2 test queries have no match" in role_checks.remarks(sound)[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("7.png,d,test,both", "7.png,d,test,bath"),
         "line 9: role 'bath' is not allowed. Allowed: query, gallery, both"),
        (("7.png,d,test,both", "7.png,d,test,"), "line 9: role '' is not allowed"),
        (("role,group", "part,group"), "line 1: a column 'group' without a column 'role'"),
        (("role,group", "role,role"), "line 1: 2 columns named 'role'"),
        (("test,query", "test,gallery", "test,both", "test,gallery"),
         "line 6 (4.png): none of the 6 test images is a query"),
        (("test,gallery", "test,query", "test,Gallery", "test,query", "test,both", "test,query"),
         "line 6 (4.png): the gallery is empty, as all 6 test images are queries only"),
        (("side", "front"),
         "line 6 (4.png): this query and all 3 have no match. Expected an image of a query's label"
         " and of another group in the gallery."),
        (("b,train,", "b,train,gallery"),
         "line 4 (2.png): training class 'b' is only in the gallery, as are 1 of 2"),
    ],
)  # fmt: skip
def test_bad_roles_are_one_sentence_with_the_line(
    source: Path, change: tuple[str, ...], said: str
) -> None:
    text = "\n".join([HEADER, *ROWS])
    for old, new in zip(change[::2], change[1::2], strict=True):
        assert old in text
        text = text.replace(old, new)
    with pytest.raises(DataError) as caught:
        load(source, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def save(root: Path, *names: str) -> None:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(8, 8, seed).save(root / name)


FOLDERS = ("train/a/1.png", "train/b/1.png", "query/c/1.png", "Gallery/c/2.png", "Gallery/x/1.png")


def test_folders_give_roles(tmp_path: Path) -> None:
    save(tmp_path, *FOLDERS, "val/d/1.png")
    dataset = folder.load(tmp_path, "given")
    assert dataset.classes == ("a", "b", "c", "x")
    assert dataset.train_classes == 2
    found = {file: (q, g) for file, q, g in zip(dataset.files, *_masks(dataset), strict=True)}
    assert found == {
        "train/a/1.png": (True, True), "train/b/1.png": (True, True),
        "query/c/1.png": (True, False), "Gallery/c/2.png": (False, True),
        "Gallery/x/1.png": (False, True),
    }  # fmt: skip
    assert "val/: 1 images of 1 classes are not used" in dataset.remarks


def _masks(dataset: Dataset) -> tuple[list[bool], list[bool]]:
    assert dataset.roles is not None
    return dataset.roles.queries.tolist(), dataset.roles.gallery.tolist()


def test_folders_beside_test_stay_unused(tmp_path: Path) -> None:
    save(tmp_path, *FOLDERS, "test/d/1.png", "test/d/2.png")
    dataset = folder.load(tmp_path, "given")
    assert dataset.roles is None
    assert "query/: 1 images of 1 classes are not used" in dataset.remarks


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (FOLDERS[:3], "gallery: no such folder. Expected it beside query/."),
        ((*FOLDERS[:2], *FOLDERS[3:]), "query: no such folder. Expected it beside Gallery/."),
        ((*FOLDERS[:3], FOLDERS[4]), "this query and all 1 have no match"),
    ],
)
def test_folders_that_lack_a_role_are_refused(
    tmp_path: Path, names: tuple[str, ...], said: str
) -> None:
    save(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        folder.load(tmp_path, "given")
    assert said in str(caught.value)


def test_folders_of_roles_are_not_classes(tmp_path: Path) -> None:
    save(tmp_path, *FOLDERS)
    with pytest.raises(DataError, match="are named like parts of a split"):
        folder.load(tmp_path)
