"""Who holds a run's lock, and whether that process still lives."""

import logging
import os
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dmlray.file_reading import read_json

HEARTBEAT_TIMEOUT = 120.0  # seconds after which a holder on another machine counts as dead
_LOOK = 1.0  # seconds between looks at another machine's heartbeat
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LockOwner:
    """The process that holds a lock; `machine` is where its number means the same process."""

    host: str
    machine: str
    process: int
    started: str
    since: str
    command: str
    nonce: str

    @property
    def is_dead(self) -> bool | None:
        """Whether its process has ended; None where that cannot be seen from here."""
        if self.machine != _machine():
            return None
        return _started(self.process) != self.started

    @property
    def is_this_process(self) -> bool:
        """Whether it is this process, not an earlier one of the same number."""
        return (self.machine, self.process) == (_machine(), os.getpid()) and not self.is_dead

    @classmethod
    def here(cls, nonce: str) -> "LockOwner":
        """This process."""
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            process=os.getpid(),
            started=_started(os.getpid()) or "",
            since=datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
            command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            nonce=nonce,
        )

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since} ({self.command})"


def read(path: Path) -> LockOwner | None:
    """Who holds a lock; None if there is none, or its file is just being written."""
    try:
        return LockOwner(**read_json(path))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError):
        return None
    except (ValueError, TypeError):
        return None


def is_alive(path: Path) -> bool:
    """Whether the holder of a lock may still write.

    Where its process cannot be seen, wait for its next heartbeat or until that is overdue.
    """
    first, announced = _heartbeat(path), False
    while True:
        holder = read(path)
        if holder and holder.is_dead is not None:
            return not holder.is_dead
        if _heartbeat_age(path) > HEARTBEAT_TIMEOUT:
            return False
        if _heartbeat(path) != first:
            return True
        if not announced:
            announced, who = True, holder or "another process"
            _logger.warning("%s: held by %s; waiting for its heartbeat", path, who)
        time.sleep(_LOOK)


def _heartbeat(path: Path) -> float:
    """The time of the last one, by the clock of the file system; of none where there is no lock."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("-inf")


def _heartbeat_age(path: Path) -> float:
    """Seconds since the last heartbeat, by the clock of the file system that keeps the lock."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:  # nothing may be written there
        now = time.time()
    return now - _heartbeat(path)


def _machine() -> str:
    """Host, boot and process namespace."""
    names = [socket.gethostname()]
    with suppress(OSError):
        names.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        names.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(names)


def _started(process: int) -> str | None:
    """When a living process began, in words or ticks that are equal at each look."""
    if Path("/proc/self/stat").exists():
        try:
            state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if state in "XZ" else fields[18]
    command = ["ps", "-o", "stat=,lstart=", "-p", str(process)]
    state, _, begun = subprocess.run(command, capture_output=True, text=True).stdout.partition(" ")
    return None if not state or state.startswith("Z") else begun.strip()
