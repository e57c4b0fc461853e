"""Training, evaluation and merging on one GPU, without Ray: how near to what the device can do.

    python benchmarks/gpu.py [--device cuda] [--small] [--rounds 3] [--only PART ...]

Each part runs in a process of its own with a time limit, and all end within 8 minutes: a part that
hangs, dies or runs out of memory is named and loses only itself. The parts, the most telling first:

NETWORK     images per second of the whole loop from the uint8 cache, of the step alone and of the
            feed alone, in bfloat16; the step's share of the rate of a large bfloat16 product, and
            of the bandwidth of a large copy, both measured here (of the traffic only that of
            activations kept for the backward pass counts, once written and once read)
precisions  ResNet-50's step in bfloat16, TF32 and float32
checkpoints epochs that write checkpoints against the bare step, and what the loop waits for them
            on a disk that is busy for half of each epoch
evaluation  epochs that also validate, against the bare step
scores      scores of Stanford Online Products' size, against their float32 products alone, and a
            merge of 48 members, against scoring the concatenation for each size
memory      how it grows over 40 epochs
members     two trainings at once on the device against one
compiled    ResNet-50's step compiled against eager

Seconds are by the clock, until the device has finished; the median of the rounds after one to warm
up. Ends with status 1 if values are wrong or a part was lost.
"""

import sys

try:
    import pydantic  # noqa: F401  # what is imported fast comes first
    import torch
    import torchvision  # noqa: F401  # and torch._dynamo, once for all parts
    from _gpu_network import network
    from _gpu_parts import Outcome, Part, answers, run_each
    from _gpu_scores import score
    from _gpu_setup import FULL, SMALL, Bench, Size, photos
    from _gpu_training import checkpoints, compiled, evaluation, memory, precisions, two_members
except ImportError as missing:
    sys.exit(
        f"gpu.py needs {missing.name}, which is not installed here: pip install {missing.name}"
    )

import argparse
import os
import signal
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

SECONDS = 470  # of all parts together


def main() -> int:
    """Run all parts, or some; 1 if values are wrong or a part was lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="seconds on a CPU: to try the script")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", metavar="PART", help="run these parts alone")
    options = parser.parse_args()
    size = (SMALL if options.small else FULL)._replace(rounds=options.rounds)
    known = {part.name: part for part in _parts(options.device, size)}
    _check(options.device, options.only or [], list(known))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the running part, too
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DMLRAY_CACHE"] = f"{folder}/cache"
        here = Path(folder)
        bench = Bench(photos(here, size.images), here, torch.device(options.device), size)
        lost = run_each([known[name] for name in options.only or known], bench, SECONDS)
    for problem in lost:
        print(f"lost: {problem}", file=sys.stderr)
    return bool(lost)


def _parts(device: str, size: Size) -> list[Part]:
    """All parts with their limits in seconds, in the order in which they run."""
    networks = [Part(name, 80, partial(network, name)) for name in size.networks]
    parts = [
        networks[0],
        Part("precisions", 110, _right(precisions)),
        Part("checkpoints", 80, _right(checkpoints)),
        Part("evaluation", 70, _right(evaluation)),
        Part("scores", 100, score),
        Part("memory", 60, _right(memory)),
        Part("members", 90, _right(two_members)),
        Part("compiled", 130, _right(compiled)),
        *networks[1:],
    ]
    # What the compiler makes of a CPU's code is not asked here.
    return [part for part in parts if device != "cpu" or part.name != "compiled"]


def _right(measure: Callable[[Bench], dict[str, float]]) -> Callable[[Bench], Outcome]:
    """A part whose values cannot be wrong."""
    return lambda bench: (measure(bench), [])


def _check(device: str, asked: list[str], known: list[str]) -> None:
    if device not in ("cuda", "cpu"):
        sys.exit(f"gpu.py: no device {device!r}. Allowed: cuda, cpu")
    if unknown := [name for name in asked if name not in known]:
        sys.exit(f"gpu.py: no part {unknown[0]!r}. Allowed: {', '.join(known)}")
    if device == "cuda" and not answers(torch.cuda.is_available):
        sys.exit("gpu.py: torch finds no CUDA device here. Allowed: --device cpu --small")


if __name__ == "__main__":
    sys.exit(main())
