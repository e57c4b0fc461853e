"""Losses against plain loops, as their authors wrote them: forward and backward on one thread.

    python benchmarks/losses.py

Seconds are CPU seconds. Ends with status 1 if losses or gradients differ, never for being slow.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
from collections.abc import Callable

import numpy as np
import torch
from _race import conclude, race, table
from torch import Tensor
from torch.nn import functional as F

from dmlray.losses import rcdml
from dmlray.methods._triplets import Triplets, by_distance, margin_cost

WIDTH, MARGIN, BOUNDARY, NEAREST = 512, 0.2, 1.2, 0.5
ALPHA, SLACK, MIX, PRC, SRC = 32.0, 0.1, 0.3, 0.05, 0.01
SOP_CLASSES = 11_318
Losses = Callable[[], Tensor]


def main() -> int:
    """Print a table and the ratios; 1 if anything differs."""
    torch.set_num_threads(1)
    ratios, wrong = dict[str, float](), list[str]()
    for compare in (_margin, _relationship):
        found, different = compare()
        ratios |= found
        wrong += different
    return conclude(ratios, wrong)


def _margin() -> tuple[dict[str, float], list[str]]:
    """Distance-weighted margin loss of 112 images, 4 of each class: DCML's loop over anchors."""
    torch.manual_seed(0)
    rows, labels = torch.randn(112, WIDTH, requires_grad=True), torch.arange(112) // 4
    with torch.no_grad():  # nearer within a class, so that distances spread
        rows.add_(torch.randn(28, WIDTH)[labels])

    def ours() -> Tensor:
        units = F.normalize(rows)
        triplets = by_distance(units.detach(), labels, NEAREST)
        return _cost(units, triplets)

    def loop() -> Tensor:
        units = F.normalize(rows)
        return margin_of_each(units, draw_for_each(units.detach(), labels))

    times = race({"margin, loop over anchors": _trained(loop), "margin, dmlray": _trained(ours)}, 7)
    table(times)
    theirs, mine = times.values()
    wrong = _different_margin(F.normalize(rows).detach().requires_grad_(), labels)
    return {"losses_margin": theirs.median / mine.median}, wrong


def _cost(units: Tensor, triplets: Triplets) -> Tensor:
    boundaries = torch.full((len(units),), BOUNDARY)
    return margin_cost(units, triplets, boundaries, MARGIN, "triplets")


def draw_for_each(units: Tensor, labels: Tensor) -> Triplets:
    """A positive and a negative for each anchor. Source: wzzheng/DCML batchminer/distance.py."""
    distances = (2 - 2 * units @ units.T).clamp(min=0).sqrt().clamp(NEAREST, 2 - 1e-4)
    positives, negatives = [], []
    for anchor in range(len(labels)):
        same = (labels == labels[anchor]).numpy()
        chances = chances_of(distances[anchor], units.shape[1], same)
        negatives.append(np.random.choice(len(labels), p=chances))
        same[anchor] = False
        positives.append(np.random.choice(np.flatnonzero(same)))
    rows = torch.arange(len(labels))
    usable = torch.ones_like(rows, dtype=torch.bool)
    return Triplets(rows, torch.tensor(positives), torch.tensor(negatives), usable)


def chances_of(distances: Tensor, dim: int, same: np.ndarray) -> np.ndarray:
    """Chance of each image (B,) to be an anchor's negative, from its distances (B,)."""
    log_q = (2.0 - dim) * distances.log() - (dim - 3) / 2 * (1 - distances.square() / 4).log()
    log_q[same] = 0
    weights = (log_q - log_q.max()).exp().double().numpy()
    weights[same] = 0
    chances: np.ndarray = weights / weights.sum()
    return chances


def margin_of_each(units: Tensor, triplets: Triplets) -> Tensor:
    """The margin loss, one triplet at a time. Source: wzzheng/DCML criteria/margin.py."""
    total, costly = units.new_zeros(()), 0
    for anchor, positive, negative in zip(*map(Tensor.tolist, triplets[:3]), strict=True):
        near = ((units[anchor] - units[positive]).pow(2).sum() + 1e-8).sqrt()
        far = ((units[anchor] - units[negative]).pow(2).sum() + 1e-8).sqrt()
        pull, push = (near - BOUNDARY + MARGIN).relu(), (BOUNDARY - far + MARGIN).relu()
        total = total + pull + push
        costly += bool(pull > 0) or bool(push > 0)
    return total / max(costly, 1)


def _different_margin(units: Tensor, labels: Tensor) -> list[str]:
    """Compare the loss of the same triplets, and how far off drawn negatives are in the mean."""
    np.random.seed(0)
    triplets = draw_for_each(units.detach(), labels)
    found, expected = _cost(units, triplets), margin_of_each(units, triplets)
    wrong = _unlike("margin", found, expected, [units])
    distances = torch.cdist(units.detach(), units.detach())
    far: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(50):
        drawn = {
            "ours": by_distance(units.detach(), labels, NEAREST),
            "theirs": draw_for_each(units.detach(), labels),
        }
        for name, drawing in drawn.items():
            far[name].append(distances[drawing.anchors, drawing.negatives].mean().item())
    gap = abs(np.mean(far["ours"]) - np.mean(far["theirs"]))
    return wrong + ([f"drawn negatives: mean distance differs by {gap}"] if gap > 2e-3 else [])


def _relationship() -> tuple[dict[str, float], list[str]]:
    """RCDML of 128 images and Stanford Online Products' classes: its loops over all classes."""
    torch.manual_seed(0)
    rows = F.normalize(torch.randn(128, WIDTH)).requires_grad_()
    proxies = (torch.randn(SOP_CLASSES, WIDTH) * (2 / SOP_CLASSES) ** 0.5).requires_grad_()
    labels = torch.randint(SOP_CLASSES // 128, (128,)) * 128

    def ours() -> Tensor:
        columns = rcdml.corrected_proxies(rows, labels, proxies, MIX)
        pull, push = rcdml.pull_and_push(rows, labels, columns, SOP_CLASSES, SLACK, ALPHA)
        apart = rcdml.proxy_relationship_loss(columns)
        return pull + push + PRC * apart + SRC * rcdml.sample_relationship_loss(rows, labels)

    def loop() -> Tensor:
        return relationship_of_each(rows, labels, proxies)

    times = race({"RCDML, dmlray": _trained(ours)}, 7)
    times |= race({"RCDML, loop over 11,318 classes": _trained(loop)}, 1, warm_up=False)
    table(times)
    mine, theirs = times.values()
    wrong = _unlike("RCDML", ours(), loop(), [rows, proxies])
    return {"losses_rcdml": theirs.median / mine.median}, wrong


def relationship_of_each(rows: Tensor, labels: Tensor, proxies: Tensor) -> Tensor:
    """All four terms, class by class. Source: Monalissaa/RCDML_pytorch code/losses.py:53-107."""
    classes = len(proxies)
    raw = _unit(rows) @ _unit(proxies).T
    corrected = []
    for c in range(classes):
        own = labels == c
        if own.any():
            share = raw[own, c].softmax(0)
            mean = (share[:, None] * rows[own]).sum(0)
            corrected.append(MIX * mean + (1 - MIX) * proxies[c])
        else:
            corrected.append(torch.zeros_like(proxies[c]))
    units = _unit(torch.stack(corrected))
    cosines = _unit(rows) @ units.T
    hot = F.one_hot(labels, classes)
    pulls = torch.where(hot == 1, (-ALPHA * (cosines - SLACK)).exp(), 0).sum(0)
    pushes = torch.where(hot == 0, (ALPHA * (cosines + SLACK)).exp(), 0).sum(0)
    loss = (1 + pulls).log().sum() / len(labels.unique()) + (1 + pushes).log().sum() / classes
    apart = (units @ units.T).relu()
    together = rows.new_zeros(())
    for c in range(classes):
        own = labels == c
        if own.sum() > 1:
            images = _unit(rows[own])
            together = together + (-(images @ images.T).min()).exp()
    return loss + PRC * (apart.sum() - apart.diagonal().sum()) + SRC * together


def _unit(rows: Tensor) -> Tensor:
    return rows / (rows.square().sum(1, keepdim=True) + 1e-12).sqrt()


def _trained(loss: Losses) -> Callable[[], None]:
    """Forward and backward."""
    return lambda: loss().backward()


def _unlike(name: str, found: Tensor, expected: Tensor, inputs: list[Tensor]) -> list[str]:
    """What differs by more than float32's rounding: the loss, and its gradients."""
    pairs = [("loss", found.detach(), expected.detach())]
    gradients = (torch.autograd.grad(loss, inputs) for loss in (found, expected))
    pairs += [("gradient", *pair) for pair in zip(*gradients, strict=True)]
    return [
        f"{name}: {what} differs by {(one - other).abs().max().item()}"
        for what, one, other in pairs
        if (one - other).abs().max() > 1e-4 * other.abs().max().clamp(min=1e-3)
    ]


if __name__ == "__main__":
    sys.exit(main())
