"""Batch samplers."""

from pathlib import Path

import numpy as np
import pytest

from dmlray.data.batches.samplers import balanced, per_class, shuffled
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
