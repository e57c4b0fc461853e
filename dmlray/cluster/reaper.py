"""End the remaining processes of a private Ray after its driver has ended, and remove its folder.

Ray ends when its driver is killed, but not always completely. This file also runs as a script, in a
separate session that signals of a terminal do not reach. It imports only the standard library, to
need little memory:

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

_PATIENCE = 10.0  # seconds to wait until Ray ends by itself
_KILLED = 10.0  # seconds for killed processes to disappear
_PAUSE = 0.2


def end(folder: Path, patience: float = _PATIENCE) -> None:
    """Remove `folder` once no process writes to it; kill those that do after `patience` seconds."""
    start = time.monotonic()
    while (left := writers(folder)) and time.monotonic() - start < patience + _KILLED:
        if time.monotonic() - start >= patience:
            for process in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(_PAUSE)
    shutil.rmtree(folder, ignore_errors=True)


def writers(folder: Path) -> list[int]:
    """List processes that have a log open for writing in a session of Ray below `folder`.

    Every process that Ray starts does; command lines and environments are not reliable, as Ray
    overwrites them. The driver's logs do not count, because it outlives Ray and its forks inherit
    them. Without /proc the list is empty.
    """
    session = re.compile(
        rf"{re.escape(str(folder.resolve()))}(?:/.*)?/session_[^/]*_(?P<driver>\d+)/"
    )
    processes = Path("/proc").glob("[0-9]*")
    return [int(process.name) for process in processes if _writes(process, session)]


def _writes(process: Path, session: re.Pattern[str]) -> bool:
    with contextlib.suppress(OSError, ValueError):  # of another user, or ended meanwhile
        for link in (process / "fd").iterdir():
            file = os.readlink(link).removesuffix(" (deleted)")
            match = session.match(file)
            if match and not file.endswith(f"_{match['driver']}.log"):
                flags = (process / "fdinfo" / link.name).read_text().split("flags:")[1].split()[0]
                if int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                    return True
    return False


def _await(driver: int) -> None:
    """Wait until `driver` closes its end of the pipe, or ends while others keep it open."""
    while os.getppid() == driver:
        if select.select([sys.stdin], [], [], 1.0)[0]:
            return


if __name__ == "__main__":
    _await(int(sys.argv[2]))
    end(Path(sys.argv[1]))
