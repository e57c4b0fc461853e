"""Start `dmlray` as a user does, and kill it as a crash does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from dmlray.cli import main

_LONG = 900.0  # seconds after which a command hangs, also on a slow and busy machine


class Command:
    """`dmlray WORDS` in a separate process group, so that a kill affects nothing else."""

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

    def finish(self) -> tuple[int, str]:
        """Return the exit status and all output."""
        try:
            out, err = self.process.communicate(timeout=_LONG)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {_LONG} s:\n{self._ended()}") from None
        return self.process.returncode, out + err

    def until(self, happened: Callable[[], bool]) -> None:
        """Wait for a condition while the command runs."""
        end = time.monotonic() + _LONG
        while not happened():
            assert self.process.poll() is None, f"ended early:\n{self.finish()[1]}"
            if time.monotonic() > end:
                raise AssertionError(f"it did not happen in {_LONG} s:\n{self._ended()}")
            time.sleep(0.05)

    def _ended(self) -> str:
        """Kill the command, which would disturb later tests, and return all output."""
        os.killpg(self.process.pid, signal.SIGKILL)
        return "".join(self.process.communicate())

    def kill(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


def in_this_process(
    words: Sequence[str], folder: Path, environment: dict[str, str]
) -> tuple[int, str]:
    """Run `dmlray WORDS` here, where all is imported; return the exit status and all output."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = CliRunner().invoke(main, list(words), env=environment)
    return result.exit_code, result.output


def lines(path: Path) -> int:
    """Count the whole lines of a file that may not exist yet."""
    return path.read_text().count("\n") if path.exists() else 0
