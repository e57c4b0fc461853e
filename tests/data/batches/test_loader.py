"""Batches depend on (seed, epoch) alone, not on threads or parts."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmlray.data import folds
from dmlray.data.batches import loader as module
from dmlray.data.batches.augment import Transform, crop_eval, normalise
from dmlray.data.batches.loader import BatchLoader, Delivery, Pair
from dmlray.data.batches.samplers import Sampling
from dmlray.data.cache.image_cache import Cache, open_cache
from dmlray.data.datasets.folder import read
from dmlray.data.folds import Subset
from dmlray.input_statistics import InputStatistics

STATISTICS = InputStatistics((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
TRANSFORM = Transform(size=16, eval_resize=20)
CPU = torch.device("cpu")
HERE = Delivery(CPU)


@pytest.fixture
def source(photos: Path) -> tuple[Cache, Subset]:
    dataset = read("folder", photos)
    # Rows 3 to 17 of the data set: positions in the subset are not rows of the cache.
    return open_cache(dataset, None, processes=1), folds.select(dataset, np.array([1, 2, 3]))


def loader(
    source: tuple[Cache, Subset],
    images_per_class: int | None = None,
    seed: int = 5,
    threads: int = 0,
    device: torch.device = CPU,
) -> BatchLoader:
    return BatchLoader(
        *source,
        TRANSFORM,
        Sampling(4, images_per_class, seed),
        STATISTICS,
        Delivery(device, threads),
    )


def same(one: list[Pair], other: list[Pair]) -> bool:
    if len(one) != len(other):
        return False
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("images_per_class", [None, 2])
def test_an_epoch_depends_on_seed_and_number_alone(
    source: tuple[Cache, Subset], images_per_class: int | None
) -> None:
    plain = loader(source, images_per_class)
    epochs = [list(plain.epoch(number)) for number in range(3)]
    resumed = list(loader(source, images_per_class).epoch(2))
    threaded = list(loader(source, images_per_class, threads=3).epoch(2))
    other = list(loader(source, images_per_class, seed=6).epoch(2))
    assert same(epochs[2], resumed)
    assert same(epochs[2], threaded)
    assert not same(epochs[2], epochs[1])
    assert not same(epochs[2], other)


def test_batches_have_the_networks_units(source: tuple[Cache, Subset]) -> None:
    plain = loader(source)
    batches = list(plain.epoch(0))
    assert len(batches) == plain.batches_per_epoch == 15 // 4
    for images, labels in batches:
        assert (images.shape, images.dtype) == ((4, 3, 16, 16), torch.float32)
        assert (labels.shape, labels.dtype) == ((4,), torch.int64)
    lowest = (0 - torch.tensor(STATISTICS.mean)) / torch.tensor(STATISTICS.std)
    highest = (1 - torch.tensor(STATISTICS.mean)) / torch.tensor(STATISTICS.std)
    values = torch.cat([images for images, _ in batches]).transpose(0, 1).flatten(1)
    assert (values.amin(1) >= lowest - 1e-6).all()
    assert (values.amax(1) <= highest + 1e-6).all()


def test_labels_belong_to_their_images(source: tuple[Cache, Subset]) -> None:
    """With a deterministic crop, each image of a batch must be of its label's class."""
    cache, subset = source
    transform = Transform(size=16, crop="none", flip=0)
    plain = BatchLoader(cache, subset, transform, Sampling(4, 2), STATISTICS, HERE)
    one = BatchLoader(cache, subset, transform, Sampling(1), STATISTICS, HERE)
    known = {images.numpy().tobytes(): int(label) for images, label in one.epoch(0)}
    assert len(known) == len(subset)
    for images, labels in plain.epoch(3):
        assert [known[image.numpy().tobytes()] for image in images.split(1)] == labels.tolist()


@pytest.mark.parametrize("threads", [0, 2])
def test_evaluation_shows_all_images_in_order(source: tuple[Cache, Subset], threads: int) -> None:
    cache, subset = source
    batches = list(loader(source, threads=threads).evaluation(batch_size=4))
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 3]
    labels = torch.cat([labels for _, labels in batches])
    np.testing.assert_array_equal(labels, subset.labels)
    wanted = normalise(crop_eval(cache, subset.rows, TRANSFORM), STATISTICS)
    torch.testing.assert_close(torch.cat([images for images, _ in batches]), wanted)


def test_threads_stop_when_the_loop_has_had_enough(source: tuple[Cache, Subset]) -> None:
    before = threading.active_count()
    batches: Any = loader(source, threads=2).epoch(0)
    next(batches)
    assert threading.active_count() > before
    batches.close()
    assert threading.active_count() == before


def test_threads_run_only_a_few_batchesahead(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def cut(batch: int, own: slice) -> Pair:
        begun.append(batch)
        return torch.tensor(batch), torch.tensor(batch)

    batches = module.ahead(cut, [(batch, slice(0, 1)) for batch in range(100)], threads=2)
    for number in range(10):
        assert next(batches)[0] == number
        assert len(begun) <= number + module.AHEAD * 2
    batches.close()


def test_a_batch_is_the_same_cut_in_pieces(
    source: tuple[Cache, Subset], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, subset = source
    for views, part in ((1, 0), (2, 1)):
        settings = (TRANSFORM, Sampling(6, seed=5, views=views), STATISTICS)
        whole = BatchLoader(cache, subset, *settings, Delivery(CPU, part=part, parts=2))
        plain, shown = list(whole.epoch(1)), list(whole.evaluation(4))
        monkeypatch.setattr(module, "PIECE", 2)
        pieces = BatchLoader(cache, subset, *settings, Delivery(CPU, 2, part, 2))
        assert same(plain, list(pieces.epoch(1)))
        assert same(shown, list(pieces.evaluation(4)))


def test_threads_cut_in_one_thread_each_and_leave_the_loop_its_own() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)

    def cut(batch: int, own: slice) -> Pair:
        return torch.tensor(torch.get_num_threads()), torch.tensor(batch)

    try:
        found = [int(count) for count, _ in module.ahead(cut, [(0, slice(1))] * 3, threads=2)]
        assert (found, torch.get_num_threads()) == ([1, 1, 1], 2)
    finally:
        torch.set_num_threads(before)


def test_an_error_in_a_thread_reaches_the_loop(
    source: tuple[Cache, Subset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise RuntimeError("no pixels")

    monkeypatch.setattr(module, "crop_train", fail)
    with pytest.raises(RuntimeError, match="no pixels"):
        list(loader(source, threads=2).epoch(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("threads", [0, 2])
def test_a_gpu_sees_the_same_batches(source: tuple[Cache, Subset], threads: int) -> None:
    gpu = torch.device("cuda")
    for there, here in zip(
        loader(source, threads=threads, device=gpu).epoch(1), loader(source).epoch(1), strict=True
    ):
        assert there[0].device.type == there[1].device.type == "cuda"
        torch.testing.assert_close(there[0].cpu(), here[0])
        assert torch.equal(there[1].cpu(), here[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_uploads_neither_wait_for_a_busy_gpu_nor_overtake_its_steps(
    source: tuple[Cache, Subset],
) -> None:
    """Delayed steps must still read their own batch, and no upload may wait for them."""
    gpu = loader(source, threads=2, device=torch.device("cuda"))
    list(gpu.epoch(0))  # copies the rows that normalise, once
    found = []
    torch.cuda.set_sync_debug_mode("error")
    try:
        for images, labels in gpu.epoch(1):
            torch.cuda._sleep(100_000_000)  # cycles, some 50 ms
            found.append((images + 0, labels + 0))
            del images, labels  # frees their memory for the next upload
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for there, here in zip(found, loader(source).epoch(1), strict=True):
        torch.testing.assert_close(there[0].cpu(), here[0])
        assert torch.equal(there[1].cpu(), here[1])
