"""Retrieval scores against pytorch-metric-learning's AccuracyCalculator (faiss): time and memory.

    python benchmarks/evaluation.py [--sop-images 60502] [--rounds 3]

Each contestant has a process of its own and one thread; seconds are CPU seconds. The calculator
gives R@1, RP and MAP@R only, ours also every other R@K. Ends with status 1 if values differ by
more than 1e-6, never for being slow.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from _race import Times, conclude, table
from torch import Tensor

WIDTH, TOLERANCE = 512, 1e-6
SOP_IMAGES, SOP_CLASSES = 60_502, 11_316
INSHOP_IMAGES, INSHOP_CLASSES = (14_218, 12_612), 3_985  # queries and gallery
OURS, THEIRS = "dmlray", "pytorch-metric-learning"
NAMES = {
    "recall_at_1": "precision_at_1",
    "r_precision": "r_precision",
    "map_at_r": "mean_average_precision_at_r",
}


class Scale(NamedTuple):
    """A data set's size, and how far images stray from their class: R@1 is near a published one.

    The first `queries` images are searched for in the others; 0: every image in all others.
    """

    name: str
    images: int
    classes: int
    noise: float
    recall_at: tuple[int, ...]
    queries: int = 0


def main() -> int:
    """Print tables and ratios; 1 if values differ."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sop-images", type=int, default=24_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contestant", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        return _compete(options.contestant[0], Scale(*json.loads(options.contestant[1])))
    ratios, wrong = dict[str, float](), list[str]()
    for scale in _scales(options.sop_images):
        found, different = _duel(scale, options.rounds)
        ratios |= found
        wrong += different
    return conclude(ratios, wrong)


def _scales(sop_images: int) -> tuple[Scale, ...]:
    classes = SOP_CLASSES * sop_images // SOP_IMAGES
    return (
        Scale("cub", 5_924, 100, 3.4, (1, 2, 4, 8)),
        Scale("sop", sop_images, classes, 2.2, (1, 10, 100, 1000)),
        Scale("inshop", sum(INSHOP_IMAGES), INSHOP_CLASSES, 2.2, (1, 10, 20), INSHOP_IMAGES[0]),
    )


def _duel(scale: Scale, rounds: int) -> tuple[dict[str, float], list[str]]:
    """Time and peak-memory ratios of one scale, and which values differ."""
    print(f"{scale.name}: {scale.images} x {WIDTH}, {scale.classes} classes")
    results: dict[str, list[dict[str, float]]] = {THEIRS: [], OURS: []}
    for _ in range(rounds):
        for name, found in results.items():
            found.append(_run(name, scale))
    times = {name: Times([r["seconds"] for r in found]) for name, found in results.items()}
    peaks = {name: max(r["peak"] for r in found) for name, found in results.items()}
    table(times)
    for name, peak in peaks.items():
        print(f"{name:48} {peak:9.0f} MiB beyond the embeddings")
    ours, theirs = results[OURS][0], results[THEIRS][0]
    print("  ".join(f"{name} {ours[name]:.4f}" for name in ours if name not in ("seconds", "peak")))
    ratios = {
        f"evaluation_{scale.name}_cpu": times[THEIRS].median / times[OURS].median,
        f"evaluation_{scale.name}_memory": peaks[THEIRS] / peaks[OURS],
    }
    gaps = {name: abs(ours[name] - theirs[name]) for name in NAMES}
    wrong = [
        f"{scale.name} {name} differs by {gap}" for name, gap in gaps.items() if gap > TOLERANCE
    ]
    return ratios, wrong


def _run(contestant: str, scale: Scale) -> dict[str, float]:
    """Let one contestant compete in a process of its own."""
    command = [sys.executable, __file__, "--contestant", contestant, json.dumps(scale)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return {name: float(value) for name, value in json.loads(answer.stdout).items()}


def _compete(contestant: str, scale: Scale) -> int:
    """Score the embeddings of `scale` and print scores, CPU seconds and peak memory as JSON."""
    torch.set_num_threads(1)
    embeddings, labels = _draw(scale)
    if contestant == OURS:
        from dmlray.evaluation.matmul import onednn_is_exact
        from dmlray.evaluation.metrics import standard_metrics
        from dmlray.evaluation.retrieval import retrieval_scores
        from dmlray.evaluation.task import RetrievalTask

        onednn_is_exact()  # once per process, as faiss's own loading below
        numbers = torch.arange(len(labels)).split([scale.queries, len(labels) - scale.queries])
        task = RetrievalTask(labels, *numbers) if scale.queries else RetrievalTask(labels)
        start = _begin()
        scores = retrieval_scores(embeddings, task, standard_metrics(scale.recall_at))
    else:
        from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

        calculator = AccuracyCalculator(
            include=tuple(NAMES.values()), k="max_bin_count", device=torch.device("cpu")
        )
        start = _begin()
        apart = (embeddings[scale.queries :], labels[scale.queries :]) if scale.queries else ()
        queries = slice(scale.queries or None)
        theirs = calculator.get_accuracy(embeddings[queries], labels[queries], *apart)
        scores = {ours: float(theirs[name]) for ours, name in NAMES.items()}
    seconds, peak = time.process_time() - start[0], _memory("VmHWM") - start[1]
    print(json.dumps({"seconds": seconds, "peak": peak, **scores}))
    return 0


def _draw(scale: Scale) -> tuple[Tensor, Tensor]:
    """Noise around a direction per class; every class has two images or more, in any order."""
    generator = torch.Generator().manual_seed(0)
    sure = torch.arange(scale.classes).repeat(2)
    rest = torch.randint(scale.classes, (scale.images - len(sure),), generator=generator)
    labels = torch.cat([sure, rest])[torch.randperm(scale.images, generator=generator)]
    centres = torch.randn(scale.classes, WIDTH, generator=generator)
    embeddings = torch.randn(scale.images, WIDTH, generator=generator)
    embeddings.mul_(scale.noise).add_(centres[labels])
    return torch.nn.functional.normalize(embeddings), labels


def _begin() -> tuple[float, float]:
    """CPU seconds and resident MiB now, from which on the peak counts anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return time.process_time(), _memory("VmRSS")


def _memory(field: str) -> float:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


if __name__ == "__main__":
    sys.exit(main())
