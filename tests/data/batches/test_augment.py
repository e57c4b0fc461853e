"""Crops and pixels, against torchvision on the original images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torchvision import transforms
from torchvision.transforms import functional as vision

from dmlray.data.batches.augment import Transform, crop_eval, crop_train, draw_boxes, normalise
from dmlray.data.cache.image_cache import Cache, open_cache
from dmlray.data.datasets.folder import read
from dmlray.input_statistics import InputStatistics
from tests.data.images import picture

SIZES = [(96, 128), (150, 100), (64, 64), (60, 200)]
ROWS = np.arange(len(SIZES))


def images() -> list[Image.Image]:
    return [picture(*size, seed) for seed, size in enumerate(SIZES)]


def cache_of(folder: Path, drawn: list[Image.Image], short_side: int | None = None) -> Cache:
    """A cache of these images, in this order."""
    for number, image in enumerate(drawn):
        path = folder / f"{number:02d}"
        path.mkdir(parents=True)
        image.save(path / "image.png")
    return open_cache(read("folder", folder), short_side, processes=1)


@pytest.fixture
def raw(tmp_path: Path) -> Cache:
    return cache_of(tmp_path / "images", images())


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).transpose(2, 0, 1).astype(int)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def boxes_of(transform: Transform, seed: int = 0) -> list[list[int]]:
    """The boxes that `crop_train` draws first."""
    heights, widths = np.array(SIZES).T
    found: list[list[int]] = draw_boxes(heights, widths, transform, rng(seed)).tolist()
    return found


@pytest.mark.parametrize("crop", ["random_resized", "none"])
@pytest.mark.parametrize("size", [16, 48, 130])
def test_resized_crops_are_pillows_within_one_level(raw: Cache, crop: str, size: int) -> None:
    transform = Transform(crop=crop, size=size, flip=0)
    batch = crop_train(raw, ROWS, transform, rng()).numpy()
    assert batch.dtype == np.uint8
    for image, box, found in zip(images(), boxes_of(transform), batch, strict=True):
        wanted = pixels(vision.resized_crop(image, *box, [size, size]))
        assert np.abs(found - wanted).max() <= 1


@pytest.mark.parametrize("crop", ["random", "center"])
def test_plain_crops_are_exact(raw: Cache, crop: str) -> None:
    transform = Transform(crop=crop, size=40, flip=0)
    batch = crop_train(raw, ROWS, transform, rng(3)).numpy()
    for image, box, found in zip(images(), boxes_of(transform, 3), batch, strict=True):
        np.testing.assert_array_equal(found, pixels(vision.crop(image, *box)))
        if crop == "center":
            np.testing.assert_array_equal(found, pixels(vision.center_crop(image, [40, 40])))


def test_crop_from_the_short_side_cache_is_torchvisions_pipeline(tmp_path: Path) -> None:
    """DREML's path: Resize, RandomCrop; the cache is already resized, so nothing is lost."""
    cache = cache_of(tmp_path / "images", images(), short_side=50)
    transform = Transform(resize=50, crop="random", size=44, flip=0)
    heights, widths = cache.sizes(ROWS).T
    boxes = draw_boxes(heights, widths, transform, rng(1))
    batch = crop_train(cache, ROWS, transform, rng(1)).numpy()
    for image, box, found in zip(images(), boxes.tolist(), batch, strict=True):
        wanted = pixels(vision.crop(transforms.Resize(50)(image), *box))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("resize", "size"), [(64, 56), (256, 224), (None, 61), (30, 57), (64, 64)])
def test_evaluation_is_torchvisions_resize_and_centre_crop(
    raw: Cache, resize: int | None, size: int
) -> None:
    batch = crop_eval(raw, ROWS, Transform(eval_resize=resize, size=size)).numpy()
    steps = [transforms.Resize(resize)] if resize else []
    pipeline = transforms.Compose([*steps, transforms.CenterCrop(size)])
    for image, found in zip(images(), batch, strict=True):
        assert np.abs(found - pixels(pipeline(image))).max() <= 1


def test_evaluation_from_its_own_cache_is_exact(tmp_path: Path) -> None:
    cache = cache_of(tmp_path / "images", images(), short_side=64)
    batch = crop_eval(cache, ROWS, Transform(eval_resize=64, size=56)).numpy()
    pipeline = transforms.Compose([transforms.Resize(64), transforms.CenterCrop(56)])
    for image, found in zip(images(), batch, strict=True):
        np.testing.assert_array_equal(found, pixels(pipeline(image)))


@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
def test_flips_mirror_the_given_fraction(raw: Cache, flip: float) -> None:
    rows = np.zeros(400, dtype=np.int64)
    batch = crop_train(raw, rows, Transform(crop="center", size=8, flip=flip), rng())
    plain = crop_train(raw, rows[:1], Transform(crop="center", size=8, flip=0), rng())
    mirrored = (batch == plain.flip(-1)).flatten(1).all(1)
    assert (mirrored | (batch == plain).flatten(1).all(1)).all()
    assert abs(mirrored.float().mean() - flip) <= (0.08 if flip == 0.5 else 0)


def test_angles_are_spread_evenly_and_drawn_last(raw: Cache) -> None:
    turned, plain = (Transform(crop="center", size=40, flip=0, rotation=d) for d in (10, 0))
    rows = np.zeros(300, dtype=np.int64)
    generator = rng(4)
    generator.random(len(rows))  # the flips
    angles = generator.uniform(-10, 10, len(rows))
    found = crop_train(raw, rows, turned, rng(4)).numpy()
    image = images()[0]
    for angle, one in zip(angles[:9], found[:9], strict=True):
        whole = vision.rotate(image, float(angle))
        np.testing.assert_array_equal(one, pixels(vision.center_crop(whole, [40, 40])))
    assert len({one.tobytes() for one in found}) > 200
    still = crop_train(raw, rows[:1], plain, rng(4)).numpy()[0]
    np.testing.assert_array_equal(still, pixels(vision.center_crop(image, [40, 40])))


def test_a_part_of_a_batch_is_turned_as_in_the_whole(raw: Cache) -> None:
    transform = Transform(crop="random", size=40, rotation=10)
    rows = np.arange(4)
    whole = crop_train(raw, rows, transform, rng(2))
    part = crop_train(raw, rows, transform, rng(2), slice(2, 4))
    assert torch.equal(part, whole[2:])


def test_padding_repeats_the_edge(tmp_path: Path) -> None:
    cache = cache_of(tmp_path / "images", [picture(6, 6), picture(6, 6, 1)])
    transform = Transform(crop="random", size=6, padding=9, flip=0)
    rows = np.zeros(200, dtype=np.int64)
    sides = np.full(200, 6)
    boxes = draw_boxes(sides, sides, transform, rng())
    assert (boxes[:, :2].min(), boxes[:, :2].max()) == (-9, 9)
    padded = np.pad(cache[0], ((9, 9), (9, 9), (0, 0)), mode="edge")
    for found, (top, left, *_) in zip(
        crop_train(cache, rows, transform, rng()).numpy(), boxes, strict=True
    ):
        wanted = padded[top + 9 : top + 15, left + 9 : left + 15].transpose(2, 0, 1)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("crop", ["random_resized", "random", "center", "none"])
@pytest.mark.parametrize("resize", [None, 12])
def test_threads_of_pixels_do_not_crash(tmp_path: Path, crop: str, resize: int | None) -> None:
    threads = [picture(1, 90), picture(90, 1), picture(1, 1), picture(2, 3)]
    cache = cache_of(tmp_path / "images", threads, resize)
    transform = Transform(crop=crop, size=16, eval_resize=20)
    rows = np.arange(4)
    for seed in range(5):
        assert crop_train(cache, rows, transform, rng(seed)).shape == (4, 3, 16, 16)
    assert crop_eval(cache, rows, transform).shape == (4, 3, 16, 16)


def distance(mine: np.ndarray, theirs: np.ndarray) -> float:
    """Kolmogorov-Smirnov: the largest gap between two empirical distributions."""
    at = np.sort(np.concatenate([mine, theirs]))
    shares = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (mine, theirs)]
    return float(np.abs(shares[0] - shares[1]).max())


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (375, 500, (0.08, 1.0), (3 / 4, 4 / 3)),
        (333, 500, (0.16, 1.0), (3 / 4, 4 / 3)),
        (64, 64, (0.5, 1.0), (0.5, 2.0)),
        (40, 400, (0.08, 1.0), (3 / 4, 4 / 3)),  # most draws use the fallback
        (400, 30, (0.6, 1.0), (3 / 4, 4 / 3)),  # all draws do
    ],
)
def test_boxes_are_drawn_from_torchvisions_distribution(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> None:
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    get_params = transforms.RandomResizedCrop.get_params
    theirs = np.array([get_params(image, list(scale), list(ratio)) for _ in range(3000)])
    many = np.full(20_000, height), np.full(20_000, width)
    mine = draw_boxes(*many, Transform(scale=scale, ratio=ratio), rng())
    for boxes in (mine, theirs):
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= [height, width]).all()
    for column in range(4):  # a gap of 0.038 has a chance of one in a thousand
        assert distance(mine[:, column], theirs[:, column]) < 0.04
    shapes = [boxes[:, 2] / boxes[:, 3] for boxes in (mine, theirs)]
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (mine, theirs)]
    assert distance(*shapes) < 0.04
    assert distance(*areas) < 0.04


def test_boxes_of_a_batch_belong_to_their_images() -> None:
    heights, widths = np.array([10, 500] * 500), np.array([500, 10] * 500)
    boxes = draw_boxes(heights, widths, Transform(), rng())
    assert (boxes[:, 0] + boxes[:, 2] <= heights).all()
    assert (boxes[:, 1] + boxes[:, 3] <= widths).all()
    assert (boxes[:, 2:] >= 1).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalise_is_what_torchvision_does(layout: torch.memory_format) -> None:
    images = torch.randint(0, 256, (5, 3, 7, 9), dtype=torch.uint8).contiguous(memory_format=layout)
    before = images.clone()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = normalise(images, InputStatistics(mean, std))
    wanted = vision.normalize(images / 255, list(mean), list(std))
    torch.testing.assert_close(found, wanted)
    assert found.dtype == torch.float32
    assert torch.equal(images, before)


def test_normalise_for_caffe_puts_blue_first() -> None:
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    found = normalise(images, InputStatistics((104, 117, 128), (1, 1, 1), scale=1.0, bgr=True))
    red, green, blue = images.float().unbind(1)
    torch.testing.assert_close(found, torch.stack([blue - 104, green - 117, red - 128], dim=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": (0.5, 0.1)}, "0 < low <= high <= 1"),
        ({"scale": (0.0, 1.0)}, "0 < low <= high <= 1"),
        ({"scale": (0.5, 1.5)}, "0 < low <= high <= 1"),
        ({"ratio": (2.0, 1.0)}, "0 < low <= high"),
        ({"ratio": (-1.0, 1.0)}, "0 < low <= high"),
        ({"padding": 4}, "padding needs crop random"),
        ({"std": (0.2, 0.0, 0.2)}, "each above 0"),
        ({"mean": (0.2, 0.2)}, "mean"),
        ({"rotation": -1}, "greater than or equal to 0"),
        ({"approximate": 256, "resize": 281}, "approximate needs resize none"),
        ({"approximate": 256, "crop": "random"}, "approximate needs resize none, and crop random_"),
        ({"size": 0}, "greater than or equal to 1"),
        ({"flip": 1.1}, "less than or equal to 1"),
        ({"crop": "five"}, "random_resized"),
        ({"colour": 1}, "Extra inputs"),
    ],
)
def test_impossible_transforms_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Transform(**settings)
