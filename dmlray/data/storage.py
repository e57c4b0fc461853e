"""Where this machine keeps what it made, and how it is made: whole, or not at all, and once."""

import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from dmlray.errors import DataError, DiskFull
from dmlray.storage import storage_error

PART = ".partial-"  # then the host and the process that makes it


def cache_folder() -> Path:
    """The folder for made data: DMLRAY_CACHE, else `~/.cache/dmlray`."""
    named = os.environ.get("DMLRAY_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "dmlray"


def make_whole(
    target: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]
) -> None:
    """Let one process of this machine `make` the folder `target`, unless `is_whole` says it is.

    Machines that share the folder wait for each other where its file system passes on flock (NFS
    does, unless mounted with `nolock`). Where not, each may make it once: the first one to finish
    wins and the others take what it made; nobody ever sees half of it.

    Raises:
        DataError: If the disk may not be written.
        DiskFull: If it has no room.
    """
    if is_whole(target):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not is_whole(target):
                _replace(target, is_whole, make)
    except OSError as error:
        failure = storage_error(error)
        if isinstance(failure, DiskFull):
            raise failure from error
        raise DataError(f"{target}: cannot be written: {error.strerror or error}.") from error


def remove(target: Path, whole: bool = True) -> bool:
    """Remove what killed processes left beside the folder `target` and, if `whole`, itself.

    Returns:
        False, with nothing removed, while a process makes it.
    """
    try:
        with FileLock(f"{target}.lock", timeout=0) as lock:
            _remove_partial(target, "")
            if whole and target.exists():
                shutil.rmtree(target)
            Path(lock.lock_file).unlink(missing_ok=True)
    except Timeout:
        return False
    except OSError as error:
        raise DataError(f"{target}: cannot be removed: {error.strerror or error}.") from error
    return True


def targets(folder: Path) -> set[Path]:
    """What processes began to make in `folder`, by the locks and half-made folders they left."""
    names = (path.name for path in folder.glob("*") if path.suffix == ".lock" or PART in path.name)
    return {folder / name.removesuffix(".lock").partition(PART)[0] for name in names}


def _replace(target: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]) -> None:
    # Whoever holds the lock is alone here: what lies there was left by a process that was killed.
    host = socket.gethostname()
    _remove_partial(target, host)
    partial = target.with_name(f"{target.name}{PART}{host}-{os.getpid()}")
    partial.mkdir()
    try:
        make(partial)
        if not is_whole(target):  # another machine may have been quicker
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_partial(target: Path, host: str) -> None:
    for left in target.parent.glob(f"{target.name}{PART}{host}*"):
        shutil.rmtree(left, ignore_errors=True)
