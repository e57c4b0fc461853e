"""Score every ensemble size in one pass, against concatenating and sorting for each size.

    python benchmarks/merge.py [--members 48] [--images 5924] [--width 12]

CPU time of one thread. The slow side is measured at a few sizes and the rest is read off the line
between them, for all of it would take minutes. It is timed in float32 and computes the same
metrics; the values are compared with float64 at these sizes. Ends with status 1 if they differ,
never for being slow.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from _race import conclude

from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.incremental import Growing
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.task import RetrievalTask

RECALL_AT = (1, 2, 4, 8)
MOST_ERROR = 1e-6


def main() -> int:
    """Print the times and their ratio; 1 if values differ."""
    arguments = read_arguments()
    torch.set_num_threads(1)
    members, labels = draw(arguments.members, arguments.images, arguments.width, arguments.classes)
    fast, curve = timed(
        lambda: prefix_scores(members, RetrievalTask(labels), standard_metrics(RECALL_AT))
    )
    growing = Growing(RetrievalTask(labels), standard_metrics(RECALL_AT))
    streamed, streamed_curve = timed(lambda: [growing.add(member) for member in members])
    sizes = sorted({1, arguments.members // 2 or 1, arguments.members})
    seconds, wrong = [], []
    for size in sizes:
        joined = torch.cat(members[:size], 1)
        seconds.append(timed(partial(sorted_scores, joined, labels))[0])
        slow = sorted_scores(joined.double(), labels)
        for name, value in slow.items():
            for ours in (curve, streamed_curve):
                if abs(ours[size - 1][name] - value) > MOST_ERROR:
                    wrong.append(f"{name} of {size}: {ours[size - 1][name]}, not {value}")
    every = np.interp(range(1, arguments.members + 1), sizes, seconds).sum()
    print(f"one pass          {fast:8.2f} cpu-s for all {arguments.members} sizes")
    print(f"as they finish    {streamed:8.2f} cpu-s")
    print(f"concatenate, sort {every:8.2f} cpu-s, extrapolated from sizes {sizes}")
    return conclude({"merge_curve": every / fast}, wrong)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--members", type=int, default=48)
    parser.add_argument("--images", type=int, default=5924)
    parser.add_argument("--width", type=int, default=12)
    parser.add_argument("--classes", type=int, default=100)
    return parser.parse_args()


def draw(
    members: int, images: int, width: int, classes: int
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Members (N, D) of unit rows around class centres, and labels (N,)."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (images,), generator=generator)
    rows = []
    for _ in range(members):
        centres = torch.randn(classes, width, generator=generator)
        noise = torch.randn(images, width, generator=generator)
        rows.append(F.normalize(centres[labels] + 2 * noise))
    return rows, labels


def sorted_scores(joined: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The plain way: all similarities (N, N) of the concatenation (N, S), sorted; all metrics."""
    similarities = joined @ joined.T
    similarities.fill_diagonal_(-torch.inf)
    order = similarities.argsort(dim=1, descending=True, stable=True)[:, :-1]
    hits = (labels[order] == labels[:, None]).double()  # (N, N - 1)
    relevant = hits.sum(1)
    hits, relevant = hits[relevant > 0], relevant[relevant > 0]
    place = torch.arange(1, hits.shape[1] + 1)
    within = hits * (place <= relevant[:, None])
    precision = hits.cumsum(1) / place
    scores = {f"recall_at_{k}": hits[:, :k].any(1).double().mean().item() for k in RECALL_AT}
    scores["r_precision"] = (within.sum(1) / relevant).mean().item()
    scores["map_at_r"] = ((within * precision).sum(1) / relevant).mean().item()
    return scores


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds, and what it gave."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


if __name__ == "__main__":
    sys.exit(main())
