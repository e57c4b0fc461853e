"""Class-disjoint folds."""

from itertools import chain
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from dmlray.data import folds, unseen
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


def toy(train_classes: int) -> Dataset:
    """A data set of one image a class that only trains."""
    names = tuple(map(str, range(train_classes)))
    return Dataset("toy", Path("/nowhere"), names, np.arange(train_classes), names, train_classes)


def held_out(classes: int, kind: folds.Kind, count: int, seed: int = 0) -> list[list[int]]:
    pairs = folds.split(toy(classes), kind, count, seed)
    return [part.classes.tolist() for _, part in pairs]


@pytest.mark.parametrize("kind", get_args(folds.Kind))
@pytest.mark.parametrize("count", [2, 3, 5])
def test_folds_are_disjoint_and_cover_the_training_classes(
    dataset: Dataset, kind: folds.Kind, count: int
) -> None:
    pairs = folds.split(dataset, kind, count)
    assert len(pairs) == count
    for train, validation in pairs:
        assert len(train.classes)
        assert len(validation.classes)
        assert not set(train.classes) & set(validation.classes)
        assert set(train.classes) | set(validation.classes) == set(range(5))
        assert not set(train.rows) & set(validation.rows)
        assert set(train.labels) == set(range(len(train.classes)))


@pytest.mark.parametrize(("classes", "count"), [(5, 2), (5, 5), (11, 4), (100, 4)])
def test_kfold_and_seeded_hold_out_each_class_once(classes: int, count: int) -> None:
    plain, seeded = (held_out(classes, kind, count) for kind in ("kfold", "seeded"))
    assert list(chain(*plain)) == list(range(classes))  # unshuffled
    assert sorted(chain(*seeded)) == list(range(classes))
    assert [len(part) for part in seeded] == [len(part) for part in plain]


def test_kfold_of_cub_holds_out_runs_of_25_classes() -> None:
    train, validation = folds.split(toy(100), "kfold", 4)[1]
    np.testing.assert_array_equal(validation.classes, np.arange(25, 50))
    np.testing.assert_array_equal(train.classes, np.r_[0:25, 50:100])


# The first and last class that each fold holds out, by the authors' own class.
MLRC = {
    100: [(75, 99), (0, 24), (25, 49), (50, 74)],  # CUB
    98: [(74, 97), (0, 23), (25, 48), (49, 72)],  # Cars
    11317: [(8488, 11316), (0, 2828), (2829, 5657), (5658, 8486)],  # SOP
}


@pytest.mark.parametrize("classes", MLRC)
def test_mlrc_cuts_as_the_authors_do(classes: int) -> None:
    wanted = [list(range(first, last + 1)) for first, last in MLRC[classes]]
    assert held_out(classes, "mlrc", 4) == wanted
    train, validation = folds.split(toy(classes), "mlrc", 4)[2]
    np.testing.assert_array_equal(
        train.classes, np.setdiff1d(np.arange(classes), validation.classes)
    )


def test_seeded_folds_are_the_same_for_everybody() -> None:
    assert held_out(9, "seeded", 3, seed=7) == [[0, 2, 7], [3, 5, 8], [1, 4, 6]]
    np.random.seed(0)  # whatever a process drew before
    assert held_out(9, "seeded", 3, seed=7) == held_out(9, "seeded", 3, seed=7)
    assert held_out(9, "seeded", 3, seed=8) != held_out(9, "seeded", 3, seed=7)


@pytest.mark.parametrize("kind", get_args(folds.Kind))
@pytest.mark.parametrize("count", [-1, 0, 1, 6])
def test_impossible_number_of_folds_is_refused(
    dataset: Dataset, kind: folds.Kind, count: int
) -> None:
    with pytest.raises(ConfigError, match=r"^protocol\.folds: .*Allowed: 2 to 5 folds"):
        folds.split(dataset, kind, count)


def test_one_training_class_cannot_be_cut() -> None:
    with pytest.raises(
        ConfigError, match=r"^protocol\.folds: 1 training class .*2 classes or more"
    ):
        folds.split(toy(1), "kfold", 2)


def test_fingerprint_tells_splits_apart(dataset: Dataset) -> None:
    pairs = folds.split(dataset, "kfold", 3)
    prints = {folds.fingerprint(dataset, subset) for pair in pairs for subset in pair}
    assert len(prints) == 6
    again = folds.select(dataset, pairs[0][1].classes)
    assert folds.fingerprint(dataset, again) in prints
    swapped = folds.select(dataset, pairs[0][1].classes[::-1])
    assert folds.fingerprint(dataset, swapped) not in prints  # other labels
