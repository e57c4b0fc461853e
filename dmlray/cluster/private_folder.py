"""Temporary folders that no other user can enter, and the removal of those of killed processes."""

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

NAME = "dml-" + 8 * "[0-9a-f]"  # short: sockets want short paths
_LOCK = "dmlray.lock"  # held while the process lives that made the folder


@contextmanager
def private_folder(base: Path) -> Iterator[Path]:
    """A new folder in `base`, removed at the end, or by a later call if this process is killed.

    Raises:
        ResourceError: If it cannot be made.
    """
    remove_left(base)
    try:
        folder, lock = _make(base)
    except OSError as error:
        reason = error.strerror or error
        raise ResourceError(f"{base}: no folder can be made there: {reason}. Make room") from error
    with lock:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _make(base: Path) -> tuple[Path, TextIO]:
    unlocked = Path(tempfile.mkdtemp(prefix=".dml-", dir=base))  # of mode 0700
    lock = (unlocked / _LOCK).open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    return unlocked.rename(base / f"dml-{secrets.token_hex(4)}"), lock  # `remove_left` sees it now


def remove_left(base: Path) -> None:
    """Remove the folders in `base` that killed processes of this user left, and end their Rays."""
    for folder in base.glob(NAME):
        with contextlib.suppress(OSError):  # of another process that does the same
            if _is_own(folder) and _is_left(folder):
                reaper.end(folder, patience=0)


def is_private(folder: Path) -> bool:
    """Whether nobody but root and this user can remove or rename what this user makes there."""
    found = folder.stat()
    theirs = found.st_uid not in (0, os.getuid())
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    return not theirs and not shared


def _is_own(folder: Path) -> bool:
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()


def _is_left(folder: Path) -> bool:
    with (folder / _LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
