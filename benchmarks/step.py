"""Training steps on one CPU thread: images per second, and what is spent outside the trunk.

    python benchmarks/step.py [--rounds 2]

Methods have their published sizes on ResNet-50 (DREML: ResNet-18) with random weights and small
batches. "Outside" is loss, heads and optimizer: a step on stored features, and the moving of the
trunk's weights. Seconds are CPU seconds. Ends with status 1 if a loss is wrong, never for speed.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _race import Times, conclude, race, table
from torch import Tensor, nn

from dmlray.learn.optimizer import build_optimizer, clip
from dmlray.learn.runtime import Runtime
from dmlray.learn.step import step
from dmlray.learn.trainer import build_learner
from dmlray.methods import Batch, Learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment

ROOT = Path(__file__).parents[1]
CPU = Runtime(torch.device("cpu"))
CLASSES, BATCH = 100, 16  # below 16 images torch has slower kernels for one thread
EXPERIMENTS: tuple[str, ...] = ("proxy_anchor_cub", "drml_cub", "rcdml_cub", "idml_cub", "dcml_cub")
EXPERIMENTS += ("dcml_diva_cub", "dreml_cub", "margin_demo", "pml_demo")


def main() -> int:
    """Print a table and the ratios; 1 if a loss is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    shares, wrong = {}, []
    for name in EXPERIMENTS:
        shares[f"step_outside_{name}"], different = _method(name, rounds)
        wrong += different
    gain, different = _bfloat16(rounds)
    return conclude({**shares, "step_bfloat16": gain}, wrong + different)


def plan_of(name: str, *words: str) -> Experiment:
    """An experiment of this project with a torchvision trunk of random weights."""
    backbone = "resnet18" if name.startswith("dreml") else "resnet50"
    common = [f"backbone.name={backbone}", "backbone.weights=none", "data.transform.resize=null"]
    common += ["data.transform.size=224"] if name.endswith("demo") else []
    file = ROOT / "experiments" / f"{name}.yaml"
    return read_experiment(file, [*common, *words]).experiment


class Stored(nn.Module):
    """The trunk's weights, but given features pass."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, features: Tensor) -> Tensor:
        return features


def draw(learner: Any, plan: Experiment, count: int) -> tuple[Tensor, Tensor]:
    """Images, or views of them, and labels of two images per class."""
    side = plan.data.transform.size
    views = getattr(learner, "views", 1)
    images = torch.randn(count, *([views] if views > 1 else []), 3, side, side)
    if images.dim() == 4:
        images = images.contiguous(memory_format=torch.channels_last)  # as the feed gives them
    return images, torch.arange(count) // 2 % CLASSES


def stepper(
    learner: Learner, plan: Experiment, images: Tensor, labels: Tensor
) -> Callable[[], Any]:
    """Takes one step on the same batch whenever it is called."""
    optimizer = build_optimizer(plan.optimizer, learner.groups())
    learner.train()
    learner.start_epoch(0)
    return lambda: step(learner, Batch(images, labels), optimizer, plan)


def _method(name: str, rounds: int) -> tuple[float, list[str]]:
    """Share of a method's step that is outside the trunk's forward and backward."""
    torch.manual_seed(0)
    plan = plan_of(name)
    learner = build_learner(plan, CLASSES, CPU)
    images, labels = draw(learner, plan, BATCH)
    take_step, losses = stepper(learner, plan, images, labels), list[float]()

    def whole() -> None:
        losses.append(sum(term.item() for term in take_step().values()))

    optimizer_alone = _moving(learner, plan)
    seconds = race({"whole": whole}, rounds)["whole"]
    width = learner.trunk.width
    assert isinstance(width, int)
    learner.trunk = Stored(learner.trunk)
    on_features = stepper(learner, plan, torch.randn(BATCH, width), labels)
    outside = race({"heads": on_features, "moving": optimizer_alone}, rounds)
    share = sum(times.median for times in outside.values()) / seconds.median
    print(_line(name, seconds, share), flush=True)
    finite = all(torch.tensor(losses).isfinite())
    return share, [] if finite else [f"{name}: losses are {losses}"]


def _line(name: str, seconds: Times, share: float) -> str:
    return f"{name:20}{BATCH / seconds.median:7.2f} images/s  {share:6.1%} outside {seconds}"


def _moving(learner: Learner, plan: Experiment) -> Callable[[], None]:
    """Clips gradients of the trunk and moves its weights."""
    group = next(group for group in learner.groups() if group.name == "trunk")
    optimizer = build_optimizer(plan.optimizer, [group])
    gradients = [torch.full_like(p, 1e-3) for p in group.parameters]

    def move() -> None:
        for parameter, gradient in zip(group.parameters, gradients, strict=True):
            parameter.grad = gradient
        clip(optimizer, plan.optimizer)
        optimizer.step()

    return move


def _bfloat16(rounds: int) -> tuple[float, list[str]]:
    """ResNet-18 at 96 px: bfloat16 in channels_last over float32 in the usual layout."""
    words = ("backbone.name=resnet18", "data.transform.size=96", "optimizer.lr=1e-6")
    runs, losses = {}, {}
    for name, precision, layout in (
        ("float32, NCHW", "float32", torch.contiguous_format),
        ("float32, channels_last", "float32", torch.channels_last),
        ("bfloat16, channels_last", "bfloat16", torch.channels_last),
    ):
        plan = plan_of("proxy_anchor_cub", *words, f"budget.precision={precision}")
        torch.manual_seed(0)
        learner = build_learner(plan, CLASSES, CPU).to(memory_format=layout)
        images, labels = draw(learner, plan, 32)
        images = images.contiguous(memory_format=layout)
        runs[name] = stepper(learner, plan, images, labels)
        losses[name] = runs[name]()["proxy_anchor"].item()
    times = race(runs, rounds)
    table(times)
    plain, _, fast = times.values()
    first, *others = losses.values()
    near = all(abs(other - first) < 0.02 * first for other in others)
    return plain.median / fast.median, [] if near else [f"losses differ: {losses}"]


if __name__ == "__main__":
    sys.exit(main())
