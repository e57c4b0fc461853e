"""Where this machine keeps what it made, and how it is made: whole, or not at all, and once."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from dmlray.errors import DataError


def cache_folder() -> Path:
    """The folder for made data: DMLRAY_CACHE, else `~/.cache/dmlray`."""
    named = os.environ.get("DMLRAY_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "dmlray"


def make_whole(
    target: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]
) -> None:
    """Let one process of this machine `make` the folder `target`, unless `is_whole` says it is.

    Raises:
        DataError: If the disk is full or may not be written.
    """
    if is_whole(target):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not is_whole(target):
                _replace(target, make)
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror or error}.") from error


def _replace(target: Path, make: Callable[[Path], None]) -> None:
    # Whoever holds the lock is alone: what lies there was left by a process that was killed.
    for left in target.parent.glob(f"{target.name}.partial-*"):
        shutil.rmtree(left, ignore_errors=True)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        make(partial)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
