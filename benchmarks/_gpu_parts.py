"""Parts of a benchmark, each in a process of its own: one that hangs or dies loses only itself."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from _gpu_setup import Bench
from _race import conclude

Outcome = tuple[dict[str, float], list[str]]  # ratios, and what is wrong
FORK = multiprocessing.get_context("fork")  # torch is imported once; nothing has used CUDA yet
_LEAST = 1.0  # seconds: a part that has less is not begun


class Part(NamedTuple):
    """What is measured in one process, and the seconds that it may take."""

    name: str
    seconds: float
    run: Callable[[Bench], Outcome]


def run_each(parts: Sequence[Part], bench: Bench, seconds: float) -> list[str]:
    """Run one part after the other, in so many seconds at most; return what was lost."""
    end = time.monotonic() + seconds
    problems = (_run(part, bench, min(part.seconds, end - time.monotonic())) for part in parts)
    return [problem for problem in problems if problem]


def answers(question: Callable[[], bool]) -> bool:
    """Ask in a process of its own: after a first use of CUDA no other can be forked."""
    process = FORK.Process(target=lambda: sys.exit(not question()))
    process.start()
    process.join()
    return process.exitcode == 0


def _run(part: Part, bench: Bench, seconds: float) -> str | None:
    if seconds < _LEAST:
        return f"{part.name}: not begun, for no time was left"
    print(f"== {part.name}", flush=True)
    process = FORK.Process(target=_alone, args=(part, bench))
    process.start()
    try:
        process.join(seconds)
        if process.is_alive():
            return f"{part.name}: ended after {seconds:.0f} s without a result"
    finally:
        _end(process)
    if process.exitcode and process.exitcode < 0:
        return f"{part.name}: killed by {signal.Signals(-process.exitcode).name}"
    return f"{part.name}: failed" if process.exitcode else None


def _alone(part: Part, bench: Bench) -> None:
    """Runs in the process; what the part starts ends with it."""
    os.setsid()
    try:
        ratios, wrong = part.run(bench)
    except Exception as error:
        ratios, wrong = {}, [f"{type(error).__name__}: {error}".split("\n")[0]]
    sys.exit(conclude(ratios, wrong))


def _end(process: BaseProcess) -> None:
    if process.is_alive() and process.pid:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
