"""Scores and merges on a device: how long, against what, and whether they are those of the CPU."""

import torch
from _gpu_setup import Bench
from _race import timed
from torch import Tensor

from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.neighbours import tiles
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask

SECONDS = 2  # that scores of Stanford Online Products' size may take on a GPU of H100's class
WIDTH, MEMBER_WIDTH, COMPARED = 512, 12, 3000
DEPTHS = (1, 10, 100)
SCORES = ("recall_at_1", "r_precision", "map_at_r")
CPU = torch.device("cpu")


def score(bench: Bench) -> tuple[dict[str, float], list[str]]:
    """Time the evaluation and the merge; ratios, and what is wrong."""
    device, images, members = bench.device, bench.size.scored, bench.size.members
    seconds, products = _evaluation(device, images, bench.size.rounds)
    ratios = {
        f"gpu_scores_of_{SECONDS}_s": seconds / SECONDS,
        "gpu_scores_over_products": seconds / products,
        "gpu_merge_curve": _merge(device, images, members),
    }
    return ratios, _different(device, min(COMPARED, images), members)


def _evaluation(device: torch.device, images: int, rounds: int) -> tuple[float, float]:
    """Seconds of the scores, and of their float32 products alone."""
    labels, [rows] = _draw(images, [WIDTH], noise=2.2)
    labels, rows = labels.to(device), rows.to(device)

    def multiply() -> None:
        for _ in tiles(rows, rows, hide=None):
            pass

    products = timed(multiply, device, rounds)
    scores = timed(
        lambda: retrieval_scores(rows, RetrievalTask(labels), standard_metrics(DEPTHS)),
        device,
        rounds,
    )
    print(f"scores of {images} x {WIDTH}: {scores}, their products alone: {products}", flush=True)
    return scores.median, products.median


def _merge(device: torch.device, images: int, count: int) -> float:
    """Times as fast as scoring the concatenation for each size."""
    labels, members = _draw(images, [MEMBER_WIDTH] * count, noise=2.0)

    def alone(size: int) -> float:
        rows, here = _joined(members[:size]).to(device), labels.to(device)
        return timed(
            lambda: retrieval_scores(rows, RetrievalTask(here), standard_metrics(DEPTHS)), device, 1
        ).median

    curve = timed(
        lambda: prefix_scores(
            members, RetrievalTask(labels), standard_metrics(DEPTHS), device=device
        ),
        device,
        1,
    )
    print(f"merge of {count} members of {images} x {MEMBER_WIDTH}, each size: {curve}")
    first, last = alone(1), alone(count)
    print(f"one size after the other: {count} times {first:.2f} to {last:.2f} s", flush=True)
    return count * (first + last) / 2 / curve.median


def _different(device: torch.device, images: int, count: int) -> list[str]:
    """Compare the device's merge with the CPU's scores of the concatenation."""
    labels, members = _draw(images, [MEMBER_WIDTH] * count, noise=2.0)
    found = prefix_scores(members, RetrievalTask(labels), standard_metrics(DEPTHS), device=device)[
        -1
    ]
    expected = retrieval_scores(_joined(members), RetrievalTask(labels), standard_metrics(DEPTHS))
    return [
        f"{name}: {found[name]} on {device}, {expected[name]} on the CPU"
        for name in SCORES
        if abs(found[name] - expected[name]) > 1e-3
    ]


def _joined(members: list[Tensor]) -> Tensor:
    """Unit rows of all members side by side."""
    joined: Tensor = torch.cat(members, 1) / len(members) ** 0.5
    return joined


def _draw(count: int, widths: list[int], noise: float) -> tuple[Tensor, list[Tensor]]:
    """Labels of about five images a class, and unit rows around a direction per class."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randperm(count, generator=generator) % (count // 5)
    rows = []
    for width in widths:
        centres = torch.randn(count // 5, width, generator=generator)
        strayed = noise * torch.randn(count, width, generator=generator) + centres[labels]
        rows.append(torch.nn.functional.normalize(strayed))
    return labels, rows
