"""Ends what is left of a private Ray once its driver is gone, and removes its folder.

Ray ends by itself when its driver is killed, but not always all of it. This file also runs as a
script, in a session of its own that no terminal's signal reaches, and imports nothing but the
standard library, so that it costs a few megabytes:

    python -I reaper.py FOLDER DRIVER    # a process; standard input: a pipe that it holds open
"""

import contextlib
import os
import re
import select
import shutil
import signal
import sys
import time
from pathlib import Path

_PATIENCE = 10.0  # seconds that Ray has to end by itself
_KILLED = 10.0  # seconds for killed processes to disappear
_PAUSE = 0.2


def end(folder: Path, patience: float = _PATIENCE) -> None:
    """Remove `folder` once no process writes to it; those that do after `patience` are killed."""
    start = time.monotonic()
    while (left := writers(folder)) and time.monotonic() - start < patience + _KILLED:
        if time.monotonic() - start >= patience:
            for process in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE)
    shutil.rmtree(folder, ignore_errors=True)


def writers(folder: Path) -> list[int]:
    """Processes that hold a log open for writing in a session of Ray below `folder`.

    Each one that Ray started does. Command lines and environments would not serve, for Ray
    overwrites them. The driver's own logs do not count: it lives on after Ray, and what it forks
    inherits them. Where there is no /proc, none is found.
    """
    session = re.compile(
        rf"{re.escape(str(folder.resolve()))}(?:/.*)?/session_[^/]*_(?P<driver>\d+)/"
    )
    processes = Path("/proc").glob("[0-9]*")
    return [int(process.name) for process in processes if _writes(process, session)]


def _writes(process: Path, session: re.Pattern[str]) -> bool:
    with contextlib.suppress(OSError, ValueError):  # of another user, or ended since
        for link in (process / "fd").iterdir():
            file = os.readlink(link).removesuffix(" (deleted)")
            found = session.match(file)
            if found and not file.endswith(f"_{found['driver']}.log"):
                flags = (process / "fdinfo" / link.name).read_text().split("flags:")[1].split()[0]
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                    return True
    return False


def _await(driver: int) -> None:
    """Return once `driver` has closed its end of the pipe, or ended while others hold it open."""
    while os.getppid() == driver:
        if select.select([sys.stdin], [], [], 1.0)[0]:
            return


if __name__ == "__main__":
    _await(int(sys.argv[2]))
    end(Path(sys.argv[1]))
