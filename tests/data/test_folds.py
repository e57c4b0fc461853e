"""Which classes a learner may see."""

from pathlib import Path

import numpy as np
import pytest

from dmlray.data import catalogue, folds, unseen
from dmlray.data.dataset import Dataset
from dmlray.errors import ConfigError


@pytest.fixture
def dataset() -> Dataset:
    """Nine classes of 1 to 9 images; five train."""
    labels = np.repeat(np.arange(9), np.arange(1, 10))
    files = tuple(f"{label}/{number}.png" for number, label in enumerate(labels))
    return Dataset("toy", Path("/nowhere"), files, labels, tuple("abcdefghi"), 5)


def test_train_and_test_share_no_image_and_miss_none(dataset: Dataset) -> None:
    train, test = folds.train_subset(dataset), unseen.test_subset(dataset)
    np.testing.assert_array_equal(train.classes, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(test.classes, [5, 6, 7, 8])
    rows = np.concatenate([train.rows, test.rows])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(dataset)))


def test_select_renumbers_in_the_order_asked(dataset: Dataset) -> None:
    subset = folds.select(dataset, np.array([3, 1]))
    np.testing.assert_array_equal(subset.rows, [1, 2, 6, 7, 8, 9])
    np.testing.assert_array_equal(subset.labels, [1, 1, 0, 0, 0, 0])
    np.testing.assert_array_equal(subset.classes[subset.labels], dataset.labels[subset.rows])


@pytest.mark.parametrize("count", [2, 3, 5])
def test_folds_are_disjoint_and_cover_the_training_classes(dataset: Dataset, count: int) -> None:
    pairs = folds.split(dataset, "kfold", count)
    assert len(pairs) == count
    for train, held_out in pairs:
        assert not set(train.classes) & set(held_out.classes)
        assert set(train.classes) | set(held_out.classes) == set(range(5))
        assert not set(train.rows) & set(held_out.rows)
        assert set(train.labels) == set(range(len(train.classes)))
    held_out_classes = np.concatenate([held_out.classes for _, held_out in pairs])
    np.testing.assert_array_equal(held_out_classes, np.arange(5))  # each once, unshuffled


def test_kfold_of_cub_holds_out_runs_of_25_classes() -> None:
    train, held_out = folds.kfold(np.arange(100), 4)[1]
    np.testing.assert_array_equal(held_out, np.arange(25, 50))
    np.testing.assert_array_equal(train, np.r_[0:25, 50:100])


@pytest.mark.parametrize("count", [-1, 0, 1, 6])
def test_impossible_number_of_folds_is_refused(dataset: Dataset, count: int) -> None:
    with pytest.raises(ConfigError, match=r"^protocol\.folds: .*Allowed: 2 to 5 folds"):
        folds.split(dataset, "kfold", count)


def test_fingerprint_tells_splits_apart(dataset: Dataset) -> None:
    pairs = folds.split(dataset, "kfold", 3)
    prints = {folds.fingerprint(dataset, subset) for pair in pairs for subset in pair}
    assert len(prints) == 6
    again = folds.select(dataset, pairs[0][1].classes)
    assert folds.fingerprint(dataset, again) in prints
    swapped = folds.select(dataset, pairs[0][1].classes[::-1])
    assert folds.fingerprint(dataset, swapped) not in prints  # other labels, another problem


def test_a_class_of_one_image_is_legal(photos: Path) -> None:
    dataset = catalogue.load("folder", photos)
    assert (unseen.test_subset(dataset).labels == 1).sum() == 1
