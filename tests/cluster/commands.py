"""Start `dmlray` as a user does, and end it as a crash does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class Command:
    """`dmlray WORDS` in a process group of its own, so that a kill reaches nothing else."""

    def __init__(self, words: Sequence[str], folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dmlray", *words],
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def finish(self, seconds: float = 240) -> tuple[int, str]:
        """Exit status, and all that it said."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            out, err = self.process.communicate()
            raise AssertionError(f"still running after {seconds} s:\n{out}{err}") from None
        return self.process.returncode, out + err

    def until(self, happened: Callable[[], bool], seconds: float = 120) -> None:
        """Wait for something to be seen while the command runs."""
        end = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"ended early:\n{self.finish()[1]}"
            assert time.monotonic() < end, "it did not happen in time"
            time.sleep(0.05)

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


def lines(path: Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return path.read_text().count("\n") if path.exists() else 0
