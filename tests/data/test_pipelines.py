"""Images of each recipe, from file to network, against the authors' Pillow and torchvision code."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional as vision

from dmlray import methods
from dmlray.data.batches.augment import Transform, crop_eval, crop_train, draw_boxes, normalise
from dmlray.data.cache.eval_cache import open_eval_cache
from dmlray.data.cache.image_cache import Cache, open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.folder import read
from dmlray.input_statistics import InputStatistics
from tests.data.images import picture

SIZES = [(375, 500), (500, 333), (300, 300), (200, 640), (90, 70)]  # as found, and two odd ones
ROWS = np.arange(len(SIZES))
FLIP = 0.5
CUB_MEAN, CUB_STD = (0.4707, 0.4601, 0.4549), (0.2767, 0.2760, 0.2850)


@dataclass(frozen=True)
class Authors:
    """The image transforms of a repository."""

    resize: int | None  # short side before the training crop, pixels
    size: int
    scale: tuple[float, float] | None  # of RandomResizedCrop; None means RandomCrop
    rotation: float = 0.0  # degrees
    eval_resize: int = 256

    def train(self, image: Image.Image, box: list[int], flip: bool, degrees: float) -> np.ndarray:
        image = transforms.Resize(self.resize)(image) if self.resize else image
        image = vision.rotate(image, degrees) if self.rotation else image
        if self.scale:
            image = vision.resized_crop(image, *box, [self.size, self.size])
        else:
            image = vision.crop(image, *box)
        return pixels(vision.hflip(image) if flip else image)

    def evaluation(self, image: Image.Image) -> np.ndarray:
        steps = [transforms.Resize(self.eval_resize), transforms.CenterCrop(self.size)]
        return pixels(transforms.Compose(steps)(image))


DREML = Authors(281, 256, None)
DREML_2018 = Authors(281, 256, None, rotation=10.0)
DRML, DRML_FIRST = Authors(256, 224, (0.16, 1.0)), Authors(256, 227, (0.16, 1.0))
PLAIN = Authors(None, 224, (0.08, 1.0))


def published(method: str, entry: str) -> Transform:
    """The transform of a method's published settings."""
    start = "data.transform."
    settings = methods.load(method).PUBLISHED[entry].settings
    knobs: dict[str, Any] = {
        key.removeprefix(start): value for key, value in settings.items() if key.startswith(start)
    }
    return Transform(**knobs)


RECIPES = [
    pytest.param(published("dreml", "cub"), DREML, id="dreml"),
    pytest.param(
        Transform(resize=281, crop="random", size=256, rotation=10), DREML_2018, id="dreml 2018"
    ),
    pytest.param(published("drml", "cub"), DRML, id="drml"),
    pytest.param(published("drml", "cub, release2021"), DRML_FIRST, id="drml, first release"),
    *[
        pytest.param(published(name, "cub"), PLAIN, id=name)
        for name in ("idml", "rcdml", "dcml", "proxy_anchor", "margin")
    ],
]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    for number, size in enumerate(SIZES):
        folder = tmp_path / "images" / f"{number}"
        folder.mkdir(parents=True)
        picture(*size, number).save(folder / "image.jpg", quality=90)
    return read("folder", tmp_path / "images")


def images(dataset: Dataset) -> list[Image.Image]:
    return [Image.open(dataset.root / file).convert("RGB") for file in dataset.files]


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1).astype(int)


def caches(dataset: Dataset, transform: Transform) -> tuple[Cache, Cache]:
    """The caches that training and evaluation read."""
    opened = partial(open_cache, dataset, processes=1)
    return opened(transform.train_short_side), open_eval_cache(transform, opened)


def assert_within_one_level(found: torch.Tensor, wanted: list[np.ndarray], exact: bool) -> None:
    assert found.dtype == torch.uint8
    assert np.abs(found.numpy().astype(int) - np.stack(wanted)).max() <= (0 if exact else 1)


@pytest.mark.parametrize(("transform", "authors"), RECIPES)
def test_training_images_are_the_authors(
    dataset: Dataset, transform: Transform, authors: Authors
) -> None:
    assert transform.flip == FLIP
    assert transform.scale == (authors.scale or transform.scale)
    cache, _ = caches(dataset, transform)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        heights, widths = cache.sizes(ROWS).T
        boxes = draw_boxes(heights, widths, transform, rng)
        flips = rng.random(len(ROWS)) < FLIP
        turns = rng.uniform(-authors.rotation, authors.rotation, len(ROWS))
        draws = zip(images(dataset), boxes.tolist(), flips, turns, strict=True)
        wanted = [authors.train(*draw) for draw in draws]
        found = crop_train(cache, ROWS, transform, np.random.default_rng(seed))
        assert_within_one_level(found, wanted, exact=authors.scale is None)


@pytest.mark.parametrize(("transform", "authors"), RECIPES)
def test_test_images_are_the_authors(
    dataset: Dataset, transform: Transform, authors: Authors
) -> None:
    _, cache = caches(dataset, transform)
    wanted = [authors.evaluation(image) for image in images(dataset)]
    found = crop_eval(cache, ROWS, transform)
    assert_within_one_level(found, wanted, exact=transform.train_short_side is not None)


def test_evaluation_is_the_same_from_raw_and_from_resized_images(dataset: Dataset) -> None:
    raw, resized = (open_cache(dataset, side, processes=1) for side in (None, 256))
    found = [crop_eval(cache, ROWS, Transform()).numpy().astype(int) for cache in (raw, resized)]
    assert np.abs(found[0] - found[1]).max() <= 1


def test_constants_of_the_data_set_give_the_authors_numbers(dataset: Dataset) -> None:
    """DREML subtracts the data set's own mean, in the unit of ToTensor."""
    transform = Transform(
        resize=281, crop="random", size=256, mean=list(CUB_MEAN), std=list(CUB_STD)
    )
    assert transform.mean
    assert transform.std
    found = normalise(
        crop_eval(caches(dataset, transform)[1], ROWS, transform),
        InputStatistics(CUB_MEAN, CUB_STD),
    )  # fmt: skip
    steps = [
        transforms.Resize(256),
        transforms.CenterCrop(256),
        transforms.ToTensor(),
        transforms.Normalize(CUB_MEAN, CUB_STD),
    ]
    wanted = torch.stack([transforms.Compose(steps)(image) for image in images(dataset)])
    torch.testing.assert_close(found, wanted)


def test_an_approximation_changes_training_only_and_is_remarked(dataset: Dataset) -> None:
    exact, approximate = Transform(), Transform(approximate=256)
    train, evaluation = caches(dataset, approximate)
    assert train.sizes(ROWS).min(1).tolist() == [256] * len(ROWS)
    wanted = [PLAIN.evaluation(image) for image in images(dataset)]
    assert_within_one_level(crop_eval(evaluation, ROWS, approximate), wanted, exact=True)
    assert exact.remark is None
    assert approximate.remark
    assert "short side 256" in approximate.remark
    near = crop_train(train, ROWS, approximate, np.random.default_rng(0))
    true = crop_train(caches(dataset, exact)[0], ROWS, exact, np.random.default_rng(0))
    assert 1 < (near.int() - true.int()).abs().float().mean() < 30  # blurred, the same places


def test_an_approximation_of_another_size_leaves_evaluation_exact(dataset: Dataset) -> None:
    transform = Transform(approximate=64)
    wanted = [PLAIN.evaluation(image) for image in images(dataset)]
    found = crop_eval(caches(dataset, transform)[1], ROWS, transform)
    assert_within_one_level(found, wanted, exact=True)
