"""Temporary folders closed to other users, and removal of those of killed processes."""

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from dmlray.cluster import reaper
from dmlray.errors import ResourceError

NAME = "dml-" + 8 * "[0-9a-f]"  # short, because paths of sockets are limited
_LOCK = "dmlray.lock"  # locked while the process that created the folder lives


@contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """Create a folder in `base`; remove it at the end, or in a later call after a kill.

    Raises:
        ResourceError: If it cannot be created.
    """
    remove_stale(base)
    try:
        folder, lock = _make(base)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"{base}: no folder can be created there: {reason}") from error
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make(base: Path) -> tuple[Path, TextIO]:
    unlocked = Path(tempfile.mkdtemp(prefix=".dml-", dir=base))  # of mode 0700
    lock = (unlocked / _LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return unlocked.rename(
        base / f"dml-{secrets.token_hex(4)}"
    ), lock  # now visible to `remove_stale`


def remove_stale(base: Path) -> None:
    """Remove the folders in `base` of this user's killed processes, and end their Rays."""
    for folder in base.glob(NAME):
        with contextlib.suppress(OSError):  # if another process does the same
            if _is_own(folder) and _is_stale(folder):
                reaper.end(folder, patience=0)


def is_private(folder: Path) -> bool:
    """Return whether only root and this user can remove or rename this user's files there."""
    status = folder.stat()
    foreign = status.st_uid not in (0, os.getuid())
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
    return not foreign and not shared


def _is_own(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _is_stale(folder: Path) -> bool:
    with (folder / _LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
