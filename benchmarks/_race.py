"""What the benchmarks share: timed rounds of several functions, and how they are printed."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import torch

Clock = Callable[[], float]  # seconds


@dataclass(frozen=True)
class Times:
    """Seconds of each round."""

    rounds: list[float]

    @property
    def median(self) -> float:
        return median(self.rounds)

    def __str__(self) -> str:
        low, high = min(self.rounds), max(self.rounds)
        return f"{self.median:9.4f} s  ({low:.4f} to {high:.4f})"


class Rate(NamedTuple):
    """Images per second of rounds of so many images each."""

    times: Times
    images: int

    @property
    def median(self) -> float:
        return self.images / self.times.median

    def __str__(self) -> str:
        slowest, fastest = (self.images / pick(self.times.rounds) for pick in (max, min))
        return f"{self.median:.0f}  ({slowest:.0f} to {fastest:.0f})"


def race(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int = 3,
    warm_up: bool = True,
    clock: Clock = time.process_time,
) -> dict[str, Times]:
    """Seconds of each contestant; all take turns, after one turn to warm up that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(-warm_up, rounds):
        for name, run in contestants.items():
            start = clock()
            run()
            if number >= 0:
                taken[name].append(clock() - start)
    return {name: Times(found) for name, found in taken.items()}


def timed(run: Callable[[], object], device: torch.device, rounds: int) -> Times:
    """Seconds of `run` alone by the clock, until the device has finished, after a warm-up."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    return race({"": run}, rounds, clock=clock)[""]


def table(times: Mapping[str, Times]) -> None:
    """One line per contestant."""
    for name, found in times.items():
        print(f"{name:48} {found}", flush=True)


def conclude(ratios: Mapping[str, float], wrong: list[str]) -> int:
    """Print the ratios and what is wrong; the exit status, 1 if anything is."""
    for name, value in ratios.items():
        print(f"RATIO {name} {value:.3g}", flush=True)
    for problem in wrong:
        print(f"wrong: {problem}", file=sys.stderr)
    return bool(wrong)
