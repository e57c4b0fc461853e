"""Split into training and test classes, and its remarks."""

from pathlib import Path

import numpy as np
import pytest

from dmlray.data import folds, unseen
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import train_test


def data(root: Path, train: dict[str, int], test: dict[str, int]) -> Dataset:
    """Class -> number of images for train and test; all files differ."""
    listed = [
        {label: [f"{side}-{label}-{number}" for number in range(count)] for label, count in part}
        for side, part in (("train", train.items()), ("test", test.items()))
    ]
    for name in (file for side in listed for files in side.values() for file in files):
        (root / name).write_text(name)
    return train_test.join("toy", root, *listed)


def named(row: int) -> str:
    return f"row {row}"


@pytest.mark.parametrize("classes", [2, 3, 10, 11])
def test_first_half_trains_rounded_up(classes: int) -> None:
    images = {str(number): [f"{number}.png"] for number in reversed(range(classes))}
    train, test = train_test.halves(images)
    assert [*train, *test] == [str(number) for number in range(classes)]
    assert len(train) - len(test) == classes % 2
    assert {**train, **test} == images


def test_class_names_sort_as_people_count() -> None:
    names = ["", "-1", "01", "1", "2", "09", "9", "10", "a", "a2", "a10", "a10b", "b1", "9" * 5000]
    images = {name: ["x"] for name in names}
    train, test = train_test.halves(images)
    backwards = train_test.halves(dict(reversed(images.items())))
    assert [*train, *test] == [*backwards[0], *backwards[1]]
    order = [*train, *test].index
    assert order("2") < order("09") < order("9") < order("10") < order("9" * 5000)
    assert order("a2") < order("a10") < order("a10b") < order("b1")


def test_class_on_both_sides_is_two_classes_and_never_passes_for_unseen(tmp_path: Path) -> None:
    dataset, _ = train_test.examine(data(tmp_path, {"a": 2, "b": 3}, {"c": 2, "b": 4}), named)
    assert dataset.classes == ("a", "b", "b", "c")
    np.testing.assert_array_equal(np.bincount(dataset.labels), [2, 3, 4, 2])
    assert dataset.remarks == ("closed set: 1 of 2 test classes also train",)
    learned, tested = folds.train_subset(dataset), unseen.test_subset(dataset)
    assert {dataset.files[row][:5] for row in learned.rows} == {"train"}
    assert {dataset.files[row][:5] for row in tested.rows} == {"test-"}


def test_lone_training_images_are_remarked(tmp_path: Path) -> None:
    dataset, _ = train_test.examine(data(tmp_path, {"a": 1, "b": 3, "c": 1}, {"d": 2}), named)
    assert dataset.remarks == ("2 of 3 training classes have one image, never a query",)
    np.testing.assert_array_equal(folds.train_subset(dataset).labels, [0, 1, 1, 1, 2])


def test_lone_test_images_are_refused(tmp_path: Path) -> None:
    dataset = data(tmp_path, {"a": 1, "b": 1}, {"b": 2, "c": 1, "d": 1})
    _, (problem,) = train_test.examine(dataset, named)
    assert problem.startswith("row 4: the only image of test class 'c'")
    assert problem.endswith("at least 2 images of each test class; 2 of 3 have one.")


def test_images_without_fault_get_no_remark(tmp_path: Path) -> None:
    dataset, problems = train_test.examine(data(tmp_path, {"a": 2}, {"b": 2}), named)
    assert (dataset.remarks, problems) == ((), ())


def test_all_faults_are_found_at_once(tmp_path: Path) -> None:
    dataset = data(tmp_path, {"a": 2}, {"b": 2, "c": 1})
    (tmp_path / "test-b-0").write_text("train-a-0")
    _, problems = train_test.examine(dataset, named)
    assert [problem.partition(":")[0] for problem in problems] == ["row 4", "row 0 and row 2"]
