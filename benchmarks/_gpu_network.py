"""One network on a device: whole loop, step and loader, against what the device does at most."""

from typing import NamedTuple

import numpy as np
import torch
from _gpu_setup import Bench, Size, loader, plan
from _race import Rate, timed
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dmlray.learn.loop import fit
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.runtime import Runtime
from dmlray.learn.state import TrainState
from dmlray.learn.step import forward, step
from dmlray.learn.trainer import build_learner
from dmlray.methods import Batch, Learner
from dmlray.plans.experiment import Experiment

REPEATS = 20


class Peaks(NamedTuple):
    """What the device does at most: operations and bytes per second."""

    flops: float
    bytes: float


def network(name: str, bench: Bench) -> tuple[dict[str, float], list[str]]:
    """Rates of one network; its ratios, and what is wrong."""
    dataset, _, device, size = bench
    peaks = _peaks(device, size)
    torch.manual_seed(0)
    of = plan(name, size)
    learner = build_learner(of, dataset.train_classes, Runtime(device))
    batches = loader(of, learner, dataset, device)
    images, labels = next(batches.epoch(0))
    flops, kept = _work(learner, of, images, labels)
    optimizer = build_optimizer(of.optimizer, learner.groups())
    epochs, losses = fit(TrainState(learner, optimizer), batches, of), list[float]()

    def steps() -> None:
        for _ in range(size.steps):
            step(learner, Batch(images, labels), optimizer, of)

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
    rates = [Rate(timed(run, device, size.rounds), number * size.batch) for run, number in runs]
    shares = rates[1].median * flops / peaks.flops, rates[1].median * 2 * kept / peaks.bytes
    print(f"{name}, {of.data.transform.size} px, batch {size.batch}, images/s:")
    for what, rate in zip(("loop", "step", "loader"), rates, strict=True):
        print(f"  {what} {rate}", flush=True)
    print(
        f"  {flops / 1e9:.1f} GFLOP per image: {shares[0]:.1%} of the product, at least "
        f"{shares[1]:.1%} of the bandwidth; {_peak_memory(device)}",
        flush=True,
    )
    ratios = {"loop_of_step": rates[0].median / rates[1].median, "step_of_product": shares[0]}
    wrong = [] if np.isfinite(losses).all() else [f"{name}: the loss is not finite"]
    return {f"gpu_{name}_{what}": value for what, value in ratios.items()}, wrong


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
