"""Evaluation crops of the resized cache equal those of the originals."""

import os
from collections import namedtuple
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.data.batches import augment
from dmlray.data.batches.augment import Transform, crop_eval
from dmlray.data.cache import inventory
from dmlray.data.cache.eval_cache import open_eval_cache
from dmlray.data.cache.image_cache import Cache, open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.folder import read
from dmlray.errors import DataError
from tests.data.images import picture

SIZES = [(60, 90), (90, 61), (48, 48), (33, 200), (1, 70), (20, 30)]
Disk = namedtuple("Disk", "total used free")


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    for number, size in enumerate(SIZES):
        folder = tmp_path / "images" / f"{number:02d}"
        folder.mkdir(parents=True)
        picture(*size, number).save(folder / "image.png")
    return read("folder", tmp_path / "images")


def opened(dataset: Dataset, transform: Transform, **options: object) -> Cache:
    return open_eval_cache(transform, partial(open_cache, dataset, processes=1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("eval_resize", [None, 24, 48, 77])
def test_crops_are_those_of_the_originals_to_the_last_bit(
    dataset: Dataset, eval_resize: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform, rows = Transform(size=32, eval_resize=eval_resize), np.arange(len(SIZES))
    wanted = crop_eval(open_cache(dataset, None, processes=1), rows, transform)
    cache = opened(dataset, transform)

    def never(*_: object) -> None:
        raise AssertionError("resized again")

    monkeypatch.setattr(augment, "_resized", never)
    assert torch.equal(crop_eval(cache, rows, transform), wanted)


def test_where_training_reads_resized_images_evaluation_reads_what_it_did(dataset: Dataset) -> None:
    for transform in (
        Transform(resize=48, crop="random", eval_resize=40, size=32),
        Transform(approximate=48, eval_resize=40, size=32),
        Transform(eval_resize=None, size=32),
    ):
        expected = open_cache(dataset, transform.eval_resize, processes=1)
        assert opened(dataset, transform).folder == expected.folder


def test_is_made_once_announced_and_listed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    transform, sizes, steps = Transform(eval_resize=24), list[int](), list[tuple[int, int]]()
    open_cache(dataset, None, processes=1)
    for _ in range(2):
        cache = opened(
            dataset,
            transform,
            announce=sizes.append,
            progress=lambda done, count: steps.append((done, count)),
        )
    assert sizes == [(cache.folder / "images.bin").stat().st_size]
    assert steps == [(len(SIZES), len(SIZES))]
    entries = {entry.short_side: entry for entry in inventory.listing()}
    assert entries.keys() == {None, 24}
    assert {entry.dataset for entry in entries.values()} == {dataset.name}


@pytest.mark.parametrize("name", ["images.bin", "index.npy", "cache.json"])
def test_a_damaged_one_is_made_again(dataset: Dataset, name: str) -> None:
    transform, rows = Transform(size=32, eval_resize=24), np.arange(len(SIZES))
    cache = opened(dataset, transform)
    wanted = crop_eval(cache, rows, transform)
    os.truncate(cache.folder / name, (cache.folder / name).stat().st_size // 2)
    assert torch.equal(crop_eval(opened(dataset, transform), rows, transform), wanted)


def test_other_images_of_the_same_names_have_another(dataset: Dataset) -> None:
    transform = Transform(eval_resize=24)
    before = opened(dataset, transform).folder
    picture(60, 90, 17).save(dataset.root / dataset.files[0])
    assert opened(read("folder", dataset.root), transform).folder != before


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_cache(dataset, None, processes=1)
    disk = Disk(10**12, 10**12, 10**9 + 10)
    monkeypatch.setattr("dmlray.data.cache.image_cache.shutil.disk_usage", lambda _: disk)
    with pytest.raises(DataError, match="the decoded images take"):
        opened(dataset, Transform(eval_resize=24))
    assert [entry.short_side for entry in inventory.listing()] == [None]
