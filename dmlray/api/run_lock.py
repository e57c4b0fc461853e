"""lock.json: the one process that writes a run folder.

It works on network file systems, too: it is created exclusively, needs no flock, and compares only
times that one file system gave. Its holder touches it again and again. Where the holder's process
can be looked at, its end is seen at once; that of a process elsewhere by its silence.
"""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from dmlray.errors import ConfigError, StorageError
from dmlray.plans.folder import RunFolder

_LOOK = 1.0  # seconds between looks at one's own lock
_BEAT = 10.0  # seconds between touches
_SILENCE = 120.0  # seconds without a touch after which a holder elsewhere is dead
_TRIES = 3  # of taking a dead holder's lock, while others try the same


@dataclass(frozen=True)
class Holder:
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
        return (self.machine, self.process) == (_machine(), os.getpid()) and not self.is_dead

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since} ({self.command})"


class RunLock:
    """The right to write a run folder and all below it, once it is taken.

    While it is held, a thread touches it. When the folder is moved or deleted, the thread
    interrupts the main thread, and `check` says why.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self.held = folder, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lock", daemon=True)
        self._nonce = uuid.uuid4().hex
        self._interrupts = False

    @property
    def nested(self) -> bool:
        """Whether this process holds the lock of a run around this one."""
        holders = map(_read, self._above())
        return any(holder.is_this_process for holder in holders if holder)

    def take(self) -> None:
        """Take the lock, also one whose holder is dead.

        Raises:
            ConfigError: If another process writes this run, one around it or one below it.
        """
        self._create()
        self.held = True
        try:
            self._check_around()
        except BaseException:
            self.release()
            raise
        main = threading.current_thread() is threading.main_thread()
        self._interrupts = main and not self.nested  # the outermost run does it for all
        self._thread.start()

    def check(self) -> None:
        """Check that the lock is still there.

        Raises:
            StorageError: If it was held and the run folder is not what it was.
        """
        if not self.held or self._is_ours():
            return
        holder = _read(self._folder.lock)
        if holder:
            raise StorageError(f"{self._folder}: was taken over by {holder}")
        moved = "moved or deleted while it was written"
        raise StorageError(
            f"{self._folder}: the run folder is gone: it or its lock.json was {moved}"
        )

    def release(self) -> None:
        """Give the lock back, if it was taken."""
        if not self.held:
            return
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        with suppress(OSError):
            if self._is_ours():
                self._folder.lock.unlink()
        self.held = False

    def _create(self) -> None:
        for _ in range(_TRIES):
            try:
                self._write()
                return
            except FileExistsError:
                self._set_aside()
        raise ConfigError(str(self._folder), ["several processes try to go on with it at once"])

    def _write(self) -> None:
        """Create the file; of several processes one can."""
        since = datetime.now().strftime("%Y-%m-%d %H:%M:%S")
        process, command = os.getpid(), shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        started = _started(process) or ""
        holder = Holder(
            socket.gethostname(), _machine(), process, started, since, command, self._nonce
        )
        content = json.dumps(asdict(holder), indent=2) + "\n"
        descriptor = os.open(self._folder.lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
        except BaseException:
            self._folder.lock.unlink(missing_ok=True)
            raise

    def _set_aside(self) -> None:
        """Remove the lock of a dead holder, and no other one that came in its place meanwhile."""
        path = self._folder.lock
        holder = _read(path)
        if _is_alive(path, holder):
            raise _refused(self._folder.path, holder)
        aside = path.with_name(f".lock.{self._nonce}")
        with suppress(FileNotFoundError):  # another process was quicker
            path.rename(aside)
            if _read(aside) == holder:
                aside.unlink()
            else:
                aside.rename(path)

    def _check_around(self) -> None:
        """A run is written by one process, with all runs that it is made of."""
        below = [*self._folder.path.glob("*/lock.json"), *self._folder.path.glob("*/*/lock.json")]
        for path in (*self._above(), *below):
            holder = _read(path)
            if holder and not holder.is_this_process and _is_alive(path, holder):
                raise _refused(path.parent, holder)

    def _above(self) -> Iterator[Path]:
        """Locks around this run; another user's could keep anybody from working below it."""
        for parent in self._folder.path.parents:
            lock = parent / self._folder.lock.name
            with suppress(OSError):
                if lock.stat().st_uid == os.getuid():
                    yield lock

    def _is_ours(self) -> bool:
        """Whether the lock is there, or cannot be looked at now."""
        try:
            holder = _read(self._folder.lock)
        except OSError:
            return True  # the file system may answer again
        return holder is not None and holder.nonce == self._nonce

    def _beat(self) -> None:
        touched = time.monotonic()
        while not self._ended.wait(_LOOK):
            if not self._is_ours():
                if self._interrupts:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return
            if time.monotonic() - touched >= _BEAT:
                touched = time.monotonic()
                with suppress(OSError):
                    os.utime(self._folder.lock)


def _read(path: Path) -> Holder | None:
    """Who holds a lock; None if there is none, or its file is just being written."""
    try:
        return Holder(**json.loads(path.read_bytes())) if path.is_file() else None
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError, TypeError):
        return None


def _is_alive(path: Path, holder: Holder | None) -> bool:
    """Whether the holder may still write, as far as can be known here."""
    dead = holder.is_dead if holder else None
    return _silence(path) <= _SILENCE if dead is None else not dead


def _silence(path: Path) -> float:
    """Seconds since a lock was touched, by the clock of the file system that keeps it."""
    try:
        with tempfile.TemporaryFile(dir=path.parent) as file:
            now = os.fstat(file.fileno()).st_mtime
    except OSError:  # nothing may be written there
        now = time.time()
    try:
        return now - path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _refused(folder: Path, holder: Holder | None) -> ConfigError:
    who = str(holder) if holder else "another process, which has just begun"
    problem = f"is being trained by {who}. Allowed: wait until it ends, or end it"
    if holder and holder.is_dead is None:
        problem += f"; without a sign of it for {_SILENCE:g} seconds it counts as dead"
    return ConfigError(str(RunFolder(folder)), [problem])


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
