"""What gpu.py trains: photos, plans and sizes."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from dmlray.data.batches.loader import BatchLoader, Delivery
from dmlray.data.batches.samplers import Sampling
from dmlray.data.cache.image_cache import open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.folds import train_subset
from dmlray.methods import Learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment

ROOT = Path(__file__).parents[1]
CLASSES, PHOTOS = 100, 64
NETWORKS = {  # name -> experiment, side in pixels
    "resnet50": ("proxy_anchor_cub", 224),
    "resnet18": ("dreml_cub", 256),
    "bn_inception": ("proxy_anchor_cub", 224),
    "timm/test_resnet": ("proxy_anchor_cub", 64),  # to try the script
}


class Size(NamedTuple):
    """How much is measured."""

    networks: tuple[str, ...]
    images: int  # of the training set
    validation: int  # images
    batch: int
    steps: int
    epochs: int  # that are timed with checkpoints, and with evaluation
    watched: int  # epochs over which memory is watched
    side: int | None  # pixels, None as published
    product: int  # rows of the square product
    copied: int  # bytes
    scored: int  # embeddings
    members: int
    rounds: int = 1


class Bench(NamedTuple):
    """What each part is given."""

    dataset: Dataset
    folder: Path
    device: torch.device
    size: Size


PUBLISHED = ("resnet50", "resnet18", "bn_inception")
FULL = Size(PUBLISHED, 6_400, 1_600, 128, 50, 6, 40, None, 8192, 4 << 30, 60_502, 48)
SMALL = Size(("timm/test_resnet",), 32, 16, 8, 2, 2, 2, 64, 256, 1 << 20, 600, 3)


def photos(folder: Path, count: int) -> Dataset:
    """Noisy photos of 500 x 375 pixels in `folder`, drawn if they are not there; each for many."""
    rng = np.random.default_rng(0)
    root = folder / "photos"
    if not root.exists():
        root.mkdir()
        for number in range(PHOTOS):
            pixels = rng.integers(0, 256, (375, 500, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"{number}.jpg")
    files = tuple(f"{number % PHOTOS}.jpg" for number in range(count))
    classes = min(CLASSES, count // 4)
    names = tuple(f"{label:03d}" for label in range(classes))
    return Dataset("photos", root, files, np.arange(count) % classes, names, classes)


def plan(name: str, size: Size, *words: str) -> Experiment:
    """An experiment on the network `name`, in bfloat16 where `words` say nothing else."""
    experiment, side = NETWORKS[name]
    given = [
        f"backbone.name={name}",
        "backbone.weights=none",
        f"data.batch_size={size.batch}",
        f"data.transform.size={size.side or side}",
        "budget.precision=bfloat16",
        f"budget.epochs={size.rounds + 1}",
        "budget.warmup_epochs=0",
        "budget.head_warmup_steps=0",
    ]
    file = ROOT / "experiments" / f"{experiment}.yaml"
    return read_experiment(file, [*given, *words]).experiment


def loader(of: Experiment, learner: Learner, dataset: Dataset, device: torch.device) -> BatchLoader:
    """The training images of `dataset` as batches on the device."""
    statistics: Any = learner.trunk.statistics
    return BatchLoader(
        open_cache(dataset, of.data.transform.resize), train_subset(dataset),
        of.data.transform, Sampling(of.data.batch_size), statistics,
        Delivery(device, threads()),
    )  # fmt: skip


def threads() -> int:
    """Threads that cut batches ahead."""
    return max(1, len(os.sched_getaffinity(0)) - 1)
