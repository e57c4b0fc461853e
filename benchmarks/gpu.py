"""Training, evaluation and merging on one GPU, without Ray: how near to what the device can do.

    python benchmarks/gpu.py [--device cuda] [--small] [--compile] [--rounds 5]

For each network: images per second of the whole loop from the uint8 cache, of the step alone and
of the feed alone, in bfloat16; the step's share of the rate of a large bfloat16 product, and of
the bandwidth of a large copy, both measured here (of the traffic only that of activations kept
for the backward pass counts, once written and once read). Then scores of Stanford Online
Products' size, against their float32 products alone, and a merge of 48 members, against scoring
the concatenation for each size. Then for ResNet-50 the step in float32, TF32, bfloat16 and
compiled; epochs with checkpoints, and with evaluation, against the bare step; how memory grows
over 40 epochs; and two trainings at once on the device against one. A part that fails is noted
and the others go on.
Seconds are by the clock, until the device has finished; the
median of the rounds after one to warm up. Ends with status 1 if values are wrong.
"""

import sys

try:
    import numpy as np
    import torch
    from _gpu_scores import score
    from _gpu_setup import FULL, SMALL, Size, loader, photos, plan
    from _gpu_training import guarded, precisions, trainings, two_members
    from _race import Rate, conclude, timed
    from torch import Tensor
    from torch.utils.flop_counter import FlopCounterMode

    from dmlray.data.dataset import Dataset
    from dmlray.learn.loop import fit
    from dmlray.learn.optimizer import build_optimizer
    from dmlray.learn.runtime import Runtime
    from dmlray.learn.state import TrainState
    from dmlray.learn.step import forward, step
    from dmlray.learn.trainer import build_learner
    from dmlray.methods import Batch, Learner
    from dmlray.plans.experiment import Experiment
except ImportError as missing:
    sys.exit(
        f"gpu.py needs {missing.name}, which is not installed here: pip install {missing.name}"
    )

import argparse
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

REPEATS = 20


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
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    _check(options.device)
    device, size = torch.device(options.device), SMALL if options.small else FULL
    size = size._replace(rounds=options.rounds)
    peaks = _peaks(device, size)
    ratios: dict[str, float] = {}
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DMLRAY_CACHE"] = f"{folder}/cache"
        dataset = photos(Path(folder), size.images)
        for name in size.networks:
            found, finite = _train(name, dataset, device, size, peaks, options.compile)
            ratios |= found
            wrong += [] if finite else [f"{name}: the loss is not finite"]
        for part in (
            partial(precisions, dataset, device, size),
            partial(trainings, dataset, Path(folder), device, size),
            partial(two_members, device, options.small),
        ):
            ratios |= guarded(part, wrong)
    found, different = score(device, size.scored, size.members, size.rounds)
    return conclude(ratios | found, wrong + different)


def _check(name: str) -> None:
    if name not in ("cuda", "cpu"):
        sys.exit(f"gpu.py: no device {name!r}. Allowed: cuda, cpu")
    if name == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu.py: torch finds no CUDA device here. Allowed: --device cpu --small")


def _peaks(device: torch.device, size: Size) -> Peaks:
    """Both over many calls, which the launch of one would hide."""
    rows = torch.randn(size.product, size.product, device=device, dtype=torch.bfloat16)
    source = torch.zeros(size.copied, dtype=torch.uint8, device=device)
    product, target = torch.empty_like(rows), torch.empty_like(source)

    def multiply() -> None:
        for _ in range(REPEATS):
            torch.mm(rows, rows, out=product)

    def copy() -> None:
        for _ in range(REPEATS):
            target.copy_(source)

    slow, slower = (min(timed(run, device, 5).rounds) / REPEATS for run in (multiply, copy))
    peaks = Peaks(2 * size.product**3 / slow, 2 * size.copied / slower)
    print(f"bfloat16 product {peaks.flops / 1e12:.1f} TFLOP/s, copy {peaks.bytes / 1e9:.0f} GB/s")
    return peaks


def _train(
    name: str, dataset: Dataset, device: torch.device, size: Size, peaks: Peaks, compiled: bool
) -> tuple[dict[str, float], bool]:
    """Rates of one network, and whether its loss stayed finite."""
    torch.manual_seed(0)
    of = plan(name, size, f"budget.compile={str(compiled).lower()}")
    learner = build_learner(of, dataset.train_classes, Runtime(device))
    batches = loader(of, learner, dataset, device)
    images, labels = next(batches.epoch(0))
    plain = plan(name, size)  # what counts operations cannot look into compiled ones
    counted = build_learner(plain, dataset.train_classes, Runtime(device))
    flops, kept = _work(counted, plain, images, labels)
    optimizer = build_optimizer(of.optimizer, learner.groups())
    epochs, losses = fit(TrainState(learner, optimizer), batches, of), list[float]()

    def steps() -> None:
        for _ in range(size.steps):
            step(learner, images, labels, optimizer, of)

    def go_through() -> None:
        for _ in batches.epoch(1):
            pass

    def loop() -> None:
        losses.append(next(epochs).metrics["loss"])

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    count = batches.batches_per_epoch
    runs = (loop, count), (steps, size.steps), (go_through, count)
    learner.train()
    rates = [Rate(timed(run, device, size.rounds), count * size.batch) for run, count in runs]
    shares = rates[1].median * flops / peaks.flops, rates[1].median * 2 * kept / peaks.bytes
    print(f"{name}, {of.data.transform.size} px, batch {size.batch}, images/s:")
    for what, rate in zip(("loop", "step", "feed"), rates, strict=True):
        print(f"  {what} {rate}", flush=True)
    print(
        f"  {flops / 1e9:.1f} GFLOP per image: {shares[0]:.1%} of the product, at least "
        f"{shares[1]:.1%} of the bandwidth; {_peak_memory(device)}",
        flush=True,
    )
    ratios = {"loop_of_step": rates[0].median / rates[1].median, "step_of_product": shares[0]}
    return {f"gpu_{name}_{what}": value for what, value in ratios.items()}, bool(
        np.isfinite(losses).all()
    )


def _peak_memory(device: torch.device) -> str:
    if device.type != "cuda":
        return "no memory of a GPU"
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of memory at most"


def _work(learner: Learner, of: Experiment, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Floating-point operations per image of a step, and bytes kept for its backward pass."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with (
        FlopCounterMode(display=False) as counter,
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        terms = learner.train().loss(forward(learner, Batch(images, labels), of), labels)
        torch.stack(list(terms.values())).sum().backward()
    learner.zero_grad()
    return counter.get_total_flops() / len(images), sum(kept.values()) / len(images)


if __name__ == "__main__":
    sys.exit(main())
