"""Batch samplers."""

from pathlib import Path

import numpy as np
import pytest

from dmlray.data.batches.samplers import (
    Sampling,
    balanced,
    class_categories,
    epoch_batches,
    few_categories,
    per_class,
    shuffled,
)
from dmlray.data.folds import Subset
from dmlray.errors import ConfigError
from tests.golden_vectors import files, load

LABELS = np.repeat(np.arange(6), [1, 2, 4, 8, 16, 9])  # 40 images


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_shuffled_deals_each_image_once(rng: np.random.Generator) -> None:
    batches = shuffled(23, 5, rng, drop_last=False)
    assert [len(batch) for batch in batches] == [5, 5, 5, 5, 3]
    dealt = np.concatenate(batches)
    np.testing.assert_array_equal(np.sort(dealt), np.arange(23))
    assert (dealt != np.arange(23)).any()


@pytest.mark.parametrize(
    ("count", "sizes"), [(23, [5, 5, 5, 5]), (20, [5, 5, 5, 5]), (5, [5]), (3, [3]), (1, [1])]
)
def test_shuffled_drops_a_short_last_batch_unless_alone(
    rng: np.random.Generator, count: int, sizes: list[int]
) -> None:
    assert [len(batch) for batch in shuffled(count, 5, rng)] == sizes


def test_per_class_shares_the_batch_out_among_distinct_classes(rng: np.random.Generator) -> None:
    batches = per_class(LABELS, 12, 4, rng)
    assert len(batches) == len(LABELS) // 12
    for batch in batches:
        labels, counts = np.unique(LABELS[batch], return_counts=True)
        assert len(labels) == 3
        assert set(counts) == {4}
        for label in labels[labels >= 2]:  # those with four images or more repeat none
            assert len(set(batch[LABELS[batch] == label])) == 4


def test_per_class_makes_at_least_one_batch(rng: np.random.Generator) -> None:
    [batch] = per_class(np.array([0, 1]), 8, 4, rng)
    np.testing.assert_array_equal(np.bincount(batch), [4, 4])


@pytest.mark.parametrize(
    ("batch_size", "images_per_class", "message"),
    [
        (64, 5, "64 is not divisible by .*Allowed: a multiple of 5"),
        (2, 4, "2 is not divisible by .*Allowed: a multiple of 4"),
        (28, 4, "28 needs 7 classes .*Allowed: at most 24"),
    ],
)
def test_impossible_batches_are_refused(
    rng: np.random.Generator, batch_size: int, images_per_class: int, message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.batch_size: {message}"):
        per_class(LABELS, batch_size, images_per_class, rng)


@pytest.mark.parametrize("path", files("rcdml_dreml", "rcdml_balanced_sampler*.npz"))
def test_balanced_draws_what_the_authors_draw(path: Path) -> None:
    golden = load(path)
    batches = balanced(
        golden["ys"],
        int(golden["batch_size"]),
        int(golden["images_per_class"]),
        np.random.RandomState(int(golden["numpy_seed"])),
    )
    np.testing.assert_array_equal(np.concatenate(batches), golden["index_stream"])


def test_classes_and_images_may_repeat_where_the_sampler_says_so(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(4), 3)
    batches = per_class(labels, 12, 2, rng, replacement="classes")
    assert [len(batch) for batch in batches] == [12]  # 6 classes of 4
    assert all(len(set(labels[pair])) == 1 for pair in batches[0].reshape(-1, 2))
    many = [per_class(labels, 4, 2, rng, replacement="classes")[0] for _ in range(50)]
    assert {len(set(labels[batch])) for batch in many} == {1, 2}  # a class twice, or two
    assert any(first == second for batch in many for first, second in batch.reshape(-1, 2))


def test_images_alone_may_repeat(rng: np.random.Generator) -> None:
    labels = np.repeat(np.arange(4), 3)
    many = [per_class(labels, 4, 2, rng, replacement="images")[0] for _ in range(50)]
    assert {len(set(labels[batch])) for batch in many} == {2}
    assert any(first == second for batch in many for first, second in batch.reshape(-1, 2))


CATEGORIES = np.repeat([0, 1, 2], [6, 3, 1])  # of ten classes


def subset(categories: np.ndarray | None) -> Subset:
    """Ten classes of five images."""
    labels = np.repeat(np.arange(10), 5)
    return Subset(np.arange(50), labels, np.arange(10), categories=categories)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("classes", [1, 3, 5, 8])
def test_batches_come_from_few_categories(count: int, classes: int) -> None:
    text = np.array(["fruit", "juice", ""])[CATEGORIES][np.repeat(np.arange(10), 5)]
    sampling = Sampling(4 * classes, 4, seed=3, categories=count)
    batches = [
        batch for epoch in range(40) for batch in epoch_batches(subset(text), sampling, epoch)
    ]
    sizes = np.bincount(CATEGORIES)
    drawn = set()
    for batch in batches:
        found, counts = np.unique(subset(text).labels[batch], return_counts=True)
        assert len(found) == classes
        assert set(counts) == {4}
        own = set(CATEGORIES[found].tolist())
        drawn |= own
        # More than `count` only where these are too small.
        assert len(own) <= count or sizes[list(own)].sum() - sizes[list(own)].max() < classes
    assert drawn == {0, 1, 2}


def test_classes_of_small_categories_are_drawn_as_often(rng: np.random.Generator) -> None:
    draw = few_categories(CATEGORIES, 1, rng)
    drawn = np.concatenate([draw(1) for _ in range(5000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=10) / 5000, 0.1, atol=0.02)


def test_batches_of_categories_are_a_function_of_seed_and_epoch() -> None:
    images = subset(CATEGORIES[np.repeat(np.arange(10), 5)])
    sampling = Sampling(8, 4, seed=1, categories=1)
    first, again, other = (epoch_batches(images, sampling, epoch) for epoch in (2, 2, 3))
    np.testing.assert_array_equal(first, again)
    assert (np.stack(first) != np.stack(other)).any()


def test_a_class_has_one_category() -> None:
    text = np.array(["fruit"] * 50)
    np.testing.assert_array_equal(class_categories(subset(text)), np.zeros(10))
    text[7] = "juice"
    with pytest.raises(
        ConfigError, match=r"data\.categories: .* 2 categories \('fruit', 'juice'\)"
    ):
        class_categories(subset(text))
    with pytest.raises(ConfigError, match=r"data\.categories: the images have no categories"):
        epoch_batches(subset(None), Sampling(8, 4, categories=1), 0)
