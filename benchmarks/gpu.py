"""Training, evaluation and merging on one GPU, without Ray: how near to what the device can do.

    python benchmarks/gpu.py [--device cuda] [--small] [--compile]

For each network: images per second of the whole loop from the uint8 cache, of the step alone and
of the feed alone, in bfloat16; the step's share of the rate of a large bfloat16 product, and of
the bandwidth of a large copy, both measured here (of the traffic only that of activations kept
for the backward pass counts, once written and once read). Then scores of Stanford Online
Products' size and a merge of 48 members, in seconds. Ends with status 1 if values are wrong.
"""

import sys

try:
    import numpy as np
    import torch
    from _race import conclude
    from PIL import Image
    from torch import Tensor
    from torch.utils.flop_counter import FlopCounterMode

    from dmlray.data.cache import open_cache
    from dmlray.data.dataset import Dataset
    from dmlray.data.folds import train_subset
    from dmlray.data.loader import Feed
    from dmlray.evaluation.merge import prefix_scores
    from dmlray.evaluation.retrieval import retrieval_scores
    from dmlray.learn.loop import fit
    from dmlray.learn.optimizer import build
    from dmlray.learn.step import forward, step
    from dmlray.learn.training import Place, build_learner
    from dmlray.methods import Batch, Learner
    from dmlray.plans.experiment import Experiment
    from dmlray.plans.files import read_experiment
except ImportError as missing:
    sys.exit(
        f"gpu.py needs {missing.name}, which is not installed here: pip install {missing.name}"
    )

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
CLASSES, PHOTOS = 100, 64
NETWORKS = {  # name -> experiment, side in pixels
    "resnet50": ("proxy_anchor_cub", 224),
    "resnet18": ("dreml_cub", 256),
    "bn_inception": ("proxy_anchor_cub", 224),
}
SCORES = ("recall_at_1", "r_precision", "map_at_r")


class Size(NamedTuple):
    """How much is measured."""

    images: int  # of the training set
    batch: int
    steps: int
    side: int | None  # pixels, None as published
    product: int  # rows of the square product
    copied: int  # bytes
    scored: int  # embeddings
    members: int


FULL = Size(6_400, 128, 50, None, 8192, 4 << 30, 60_502, 48)
SMALL = Size(32, 8, 2, 64, 256, 1 << 20, 600, 3)


class Peaks(NamedTuple):
    """What the device does at most: operations and bytes per second."""

    flops: float
    bytes: float


def main() -> int:
    """Print all figures; 1 if values are wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="seconds on a CPU: to try the script")
    parser.add_argument("--compile", action="store_true", help="compile the trunks")
    options = parser.parse_args()
    _check(options.device)
    device, size = torch.device(options.device), SMALL if options.small else FULL
    peaks = _peaks(device, size)
    ratios, wrong = {}, []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DMLRAY_CACHE"] = f"{folder}/cache"
        dataset = _dataset(Path(folder), size.images)
        for name in NETWORKS:
            found, finite = _train(name, dataset, device, size, peaks, options.compile)
            ratios |= found
            wrong += [] if finite else [f"{name}: the loss is not finite"]
    wrong += _score(device, size)
    return conclude(ratios, wrong)


def _check(name: str) -> None:
    if name not in ("cuda", "cpu"):
        sys.exit(f"gpu.py: no device {name!r}. Allowed: cuda, cpu")
    if name == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu.py: torch finds no CUDA device here. Allowed: --device cpu --small")


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """By the clock, until the device has finished."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _peaks(device: torch.device, size: Size) -> Peaks:
    rows = torch.randn(size.product, size.product, device=device, dtype=torch.bfloat16)
    source = torch.zeros(size.copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    runs = (lambda: rows @ rows), (lambda: target.copy_(source))
    product, copy = (min(_seconds(run, device) for _ in range(5)) for run in runs)
    peaks = Peaks(2 * size.product**3 / product, 2 * size.copied / copy)
    print(f"bfloat16 product {peaks.flops / 1e12:.1f} TFLOP/s, copy {peaks.bytes / 1e9:.0f} GB/s")
    return peaks


def _dataset(folder: Path, count: int) -> Dataset:
    """Noisy photos of 500 x 375 pixels, each standing for many."""
    rng = np.random.default_rng(0)
    photos = folder / "photos"
    photos.mkdir()
    for number in range(PHOTOS):
        pixels = rng.integers(0, 256, (375, 500, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.jpg")
    files = tuple(f"{number % PHOTOS}.jpg" for number in range(count))
    labels = np.arange(count) % CLASSES
    classes = tuple(f"{label:03d}" for label in range(CLASSES))
    return Dataset("photos", photos, files, labels, classes, CLASSES)


def _plan(name: str, size: Size, compile_trunk: bool) -> Experiment:
    experiment, side = NETWORKS[name]
    return read_experiment(
        ROOT / "experiments" / f"{experiment}.yaml",
        [
            f"backbone.name={name}",
            "backbone.weights=none",
            f"data.batch_size={size.batch}",
            f"data.transform.size={size.side or side}",
            "budget.precision=bfloat16",
            f"budget.compile={str(compile_trunk).lower()}",
            "budget.epochs=3",
            "budget.warmup_epochs=0",
        ],
    ).experiment


def _train(
    name: str, dataset: Dataset, device: torch.device, size: Size, peaks: Peaks, compiled: bool
) -> tuple[dict[str, float], bool]:
    """Rates of one network, and whether its loss stayed finite."""
    torch.manual_seed(0)
    plan = _plan(name, size, compiled)
    learner = build_learner(plan, CLASSES, Place(device))
    feed = _feed(plan, learner, dataset, device)
    optimizer = build(plan.optimizer, learner.groups())
    images, labels = next(iter(feed.epoch(0)))
    flops, kept = _work(learner, plan, images, labels)

    def steps() -> None:
        for _ in range(size.steps):
            step(learner, images, labels, optimizer, plan)

    steps()  # warm up: kernels are chosen, memory is found
    epochs = fit(learner, feed, optimizer, plan)
    next(epochs)
    alone = size.steps * size.batch / _seconds(steps, device)
    fed = feed.batches_per_epoch * size.batch / _seconds(lambda: list(_last(feed)), device)
    losses: list[float] = []
    clock = _seconds(lambda: losses.append(next(epochs).metrics["loss"]), device)
    whole = feed.batches_per_epoch * size.batch / clock
    shares = alone * flops / peaks.flops, alone * 2 * kept / peaks.bytes
    print(
        f"{name:14} {plan.data.transform.size} px, batch {size.batch}: loop {whole:.0f}, "
        f"step {alone:.0f}, feed {fed:.0f} images/s; {flops / 1e9:.1f} GFLOP per image: "
        f"{shares[0]:.1%} of the product, at least {shares[1]:.1%} of the bandwidth",
        flush=True,
    )
    return {f"gpu_{name}_loop_of_step": whole / alone}, bool(np.isfinite(losses).all())


def _last(feed: Feed) -> list[float]:
    """Go through an epoch and keep nothing but a number of each batch on the device."""
    return [images[0, 0, 0, 0] for images, _ in feed.epoch(1)]


def _feed(plan: Experiment, learner: Learner, dataset: Dataset, device: torch.device) -> Feed:
    statistics = learner.trunk.statistics
    threads = max(1, len(os.sched_getaffinity(0)) - 1)
    return Feed(
        open_cache(dataset, plan.data.transform.resize), train_subset(dataset),
        plan.data.transform, plan.data.batch_size, None, 0,
        statistics.mean, statistics.std, statistics.scale, statistics.bgr, device, threads,
    )  # fmt: skip


def _work(
    learner: Learner, plan: Experiment, images: Tensor, labels: Tensor
) -> tuple[float, float]:
    """Floating-point operations per image of a step, and bytes kept for its backward pass."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        terms = learner.train().loss(forward(learner, Batch(images, labels), plan), labels)
        torch.stack(list(terms.values())).sum().backward()
    learner.zero_grad()
    return counter.get_total_flops() / len(images), sum(kept.values()) / len(images)


def _score(device: torch.device, size: Size) -> list[str]:
    """Time the evaluation and the merge, and name what is wrong."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randperm(size.scored, generator=generator) % (size.scored // 5)
    embeddings = _unit_rows(size.scored, 512, generator)
    members = [_unit_rows(size.scored, 12, generator) for _ in range(size.members)]
    here, labels_here = embeddings.to(device), labels.to(device)
    depths = (1, 10, 100)
    seconds = [
        _seconds(lambda: retrieval_scores(here, labels_here, depths), device) for _ in range(2)
    ]
    print(f"scores of {size.scored} x 512: {seconds[1]:.2f} s (first time {seconds[0]:.2f})")
    clock = _seconds(lambda: prefix_scores(members, labels, depths, device=device), device)
    print(f"merge of {size.members} members of {size.scored} x 12, each size: {clock:.2f} s")
    few = min(3000, size.scored)
    some = [member[:few] for member in members]
    found = prefix_scores(some, labels[:few] % (few // 5), depths, device=device)[-1]
    joined = torch.cat(some, 1) / size.members**0.5
    expected = retrieval_scores(joined, labels[:few] % (few // 5), depths)  # on the CPU
    return [
        f"{name}: {found[name]} on {device}, {expected[name]} on the CPU"
        for name in SCORES
        if abs(found[name] - expected[name]) > 1e-3
    ]


def _unit_rows(count: int, width: int, generator: torch.Generator) -> Tensor:
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator))


if __name__ == "__main__":
    sys.exit(main())
