"""lock.json: the one process that writes a run folder.

It works on network file systems, too: it is created exclusively, needs no flock, and compares only
times that one file system gave. Its modification time is the holder's heartbeat. The end of a
process of this machine is seen at once, that of one elsewhere by a missing heartbeat.
"""

import json
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from dmlray.api.lock_owner import HEARTBEAT_TIMEOUT, LockOwner, is_alive, read
from dmlray.errors import ConfigError, StorageError
from dmlray.plans.run_folder import RunFolder

_LOOK = 1.0  # seconds between looks at one's own lock
_BEAT = 10.0  # seconds between heartbeats
_TRIES = 3  # of taking a dead holder's lock, while others try the same


class RunLock:
    """The right to write a run folder and all below it, once it is taken.

    While it is held, a thread gives its heartbeat. When the folder is moved or deleted, the thread
    interrupts the main thread, and `check` raises why.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self.held = folder, False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._refresh, name="lock", daemon=True)
        self._nonce = uuid.uuid4().hex
        self._interrupts = False

    @property
    def nested(self) -> bool:
        """Whether this process holds the lock of a run around this one."""
        holders = map(read, self._above())
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
        holder = read(self._folder.lock)
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
        holder = LockOwner.here(self._nonce)
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
        holder = read(path)
        if is_alive(path):
            raise _refused(path)
        aside = path.with_name(f".lock.{self._nonce}")
        with suppress(FileNotFoundError):  # another process was quicker
            path.rename(aside)
            if read(aside) == holder:
                aside.unlink()
            else:
                aside.rename(path)

    def _check_around(self) -> None:
        """A run is written by one process, with all runs that it is made of."""
        below = [*self._folder.path.glob("*/lock.json"), *self._folder.path.glob("*/*/lock.json")]
        for path in (*self._above(), *below):
            holder = read(path)
            if holder and not holder.is_this_process and is_alive(path):
                raise _refused(path)

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
            holder = read(self._folder.lock)
        except OSError:
            return True  # the file system may answer again
        return holder is not None and holder.nonce == self._nonce

    def _refresh(self) -> None:
        last = time.monotonic()
        while not self._ended.wait(_LOOK):
            if not self._is_ours():
                if self._interrupts:
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return
            if time.monotonic() - last >= _BEAT:
                last = time.monotonic()
                with suppress(OSError):
                    os.utime(self._folder.lock)


def _refused(lock: Path) -> ConfigError:
    holder = read(lock)
    who = str(holder) if holder else "another process, which has just begun"
    problem = f"is being trained by {who}. Allowed: wait until it ends, or end it"
    if holder and holder.is_dead is None:
        problem += f"; without a heartbeat for {HEARTBEAT_TIMEOUT:g} seconds it counts as dead"
    return ConfigError(str(RunFolder(lock.parent)), [problem])
