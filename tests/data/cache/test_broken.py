"""Broken images are left out with a remark, and never a whole class."""

import pytest

from dmlray.data.cache.broken import leave_out
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.folder import read
from dmlray.errors import DataError


def broken(*files: str) -> dict[str, str]:
    return dict.fromkeys(files, "the file is empty")


def test_nothing_changes_where_nothing_is_broken(dataset: Dataset) -> None:
    assert leave_out(dataset, {}) is dataset


def test_classes_sides_and_the_order_of_images_stay(dataset: Dataset) -> None:
    sound = leave_out(dataset, broken("a/1.png", "d/0.png"))
    assert sound.files == tuple(f for f in dataset.files if f not in ("a/1.png", "d/0.png"))
    assert [sound.classes[label] for label in sound.labels] == [file[0] for file in sound.files]
    assert (sound.classes, sound.train_classes) == (dataset.classes, dataset.train_classes)


@pytest.mark.parametrize(
    ("files", "remark"),
    [
        (["a/1.png"], "1 of 19 images left out as broken: a/1.png"),
        (
            ["a/1.png", "b/0.png", "b/1.png", "d/0.png"],
            "4 of 19 images left out as broken: a/1.png, b/0.png, b/1.png, ...",
        ),
    ],
)
def test_every_score_says_how_many_and_which(
    dataset: Dataset, files: list[str], remark: str
) -> None:
    assert leave_out(dataset, broken(*files)).remarks == (*dataset.remarks, remark)


def test_the_fingerprint_is_that_of_the_images_that_are_left(dataset: Dataset) -> None:
    sound = leave_out(dataset, broken("a/1.png"))
    assert sound.fingerprint != dataset.fingerprint
    (dataset.root / "a" / "1.png").unlink()
    assert sound.fingerprint == read("folder", dataset.root).fingerprint


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ([f"a/{n}.png" for n in range(3)], "leaves 0 of 3 images of training class 'a'"),
        ([f"d/{n}.png" for n in range(6)], "leaves 0 of 6 images of test class 'd'"),
        ([f"d/{n}.png" for n in range(5)], "leaves 1 of 6 images of test class 'd'"),
    ],
)
def test_a_class_that_could_not_be_scored_is_refused(
    dataset: Dataset, files: list[str], problem: str
) -> None:
    with pytest.raises(DataError, match=f"photos: data.skip_broken {problem}"):
        leave_out(dataset, broken(*files))


def test_a_training_class_may_keep_one_image(dataset: Dataset) -> None:
    assert len(leave_out(dataset, broken("a/0.png", "a/1.png"))) == len(dataset) - 2
