"""What `dmlray init` chooses, from what the images are and how fast they train."""

from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from dmlray.data import folds
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.survey import Survey
from dmlray.plans.starter import choose_schedule, choose_settings, image_sizes
from dmlray.plans.starter_files import experiment_text, search_text


def images(classes: int, each: int, short_side: int, root: str = "/photos") -> Survey:
    count = classes * each
    dataset = Dataset(
        "folder",
        Path(root),
        tuple(f"{row}.png" for row in range(count)),
        np.repeat(np.arange(classes), each),
        tuple(f"c{label}" for label in range(classes)),
        (classes + 1) // 2,
    )
    possible = tuple(folds.suitable(dataset, "kfold"))
    side = (short_side,) * 3
    return Survey(Path(root), "classes", dataset, side, MappingProxyType({}), (), possible)


@pytest.mark.parametrize(
    ("short_side", "gpu", "sizes"),
    [(40, False, [64]), (100, False, [96, 64]), (4000, False, [128, 96, 64])],
)
def test_no_image_is_enlarged_beyond_64_pixels(
    short_side: int, gpu: bool, sizes: list[int]
) -> None:
    assert image_sizes(images(8, 3, short_side), gpu=gpu) == sizes
    assert (
        image_sizes(images(8, 3, short_side), gpu=True)[0]
        == min(max(64, short_side), 224) // 32 * 32
    )


def test_the_cache_of_large_photos_is_small() -> None:
    large = choose_settings(images(8, 3, 3000), 224, gpu=True, packaged=True)
    assert (large.resize, large.eval_resize, large.backbone) == (256, 256, "resnet50")
    assert choose_settings(images(8, 3, 300), 224, gpu=True, packaged=True).resize is None
    assert choose_settings(images(8, 3, 64), 64, gpu=False, packaged=False).backbone == "resnet18"


@pytest.mark.parametrize("classes", [4, 7, 8, 12, 33, 100, 500])
def test_a_batch_fits_into_the_classes_of_the_smallest_training_part(classes: int) -> None:
    found = images(classes, 10, 100)
    settings = choose_settings(found, 96, gpu=False, packaged=True)
    parts = [classes // 2] if not found.fold_counts else []
    for count in found.fold_counts:
        parts += [len(train.classes) for train, _ in folds.split(found.dataset, "kfold", count)]
    if each := settings.images_per_class:
        assert settings.batch_size % each == 0
        assert settings.batch_size // each <= min(parts)
    assert settings.batch_size >= 2


@pytest.mark.parametrize("speed", [0.1, 5, 100, 2000])
@pytest.mark.parametrize("each", [3, 60, 1000])
def test_a_search_takes_no_more_than_an_hour_unless_it_is_the_least_there_is(
    speed: float, each: int
) -> None:
    found = images(40, each, 100)
    chosen = choose_schedule(found, speed, devices=1)
    assert chosen.folds in (2, 4)
    assert chosen.trials >= 4
    epoch = found.train_images * (chosen.folds - 1 + 1 / 3) / speed
    assert chosen.search_seconds == pytest.approx(chosen.trials * chosen.trial_epochs * epoch / 2)
    least = (chosen.trials, chosen.trial_epochs) == (4, 2)
    assert least or chosen.search_seconds <= 3600 + 1e-6
    assert chosen.seconds == pytest.approx(chosen.epochs * found.train_images / speed)
    assert chosen.epochs == 2 or chosen.seconds <= 600


@pytest.mark.parametrize("root", ["/a b", "/tmp/#1: x", "/tmp/'q\"", "/tmp/nul\x1b\n#x", "/2024"])
def test_any_path_becomes_one_line_of_yaml(root: str, tmp_path: Path) -> None:
    import yaml

    found = images(12, 4, 100, root)
    settings = choose_settings(found, 96, gpu=False, packaged=True)
    schedule = choose_schedule(found, 50, 1)
    text = experiment_text(found, settings, schedule)
    assert yaml.safe_load(text)["data"]["root"] == root
    assert "\x1b" not in text
    search = yaml.safe_load(search_text(Path(root, "x.yaml"), schedule))
    assert search["experiment"] == f"{root}/x.yaml"
