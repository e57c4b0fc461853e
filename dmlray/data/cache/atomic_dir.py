"""Where this machine keeps what it made, and how it is made: whole, or not at all, and once."""

import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile

from filelock import FileLock, Timeout

from dmlray.atomic_files import storage_error
from dmlray.errors import DataError, DiskFull

_logger = logging.getLogger(__name__)
PART = ".partial-"  # then the host and the process that makes it


def cache_folder() -> Path:
    """The folder for made data: DMLRAY_CACHE, else `~/.cache/dmlray`."""
    named = os.environ.get("DMLRAY_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "dmlray"


def roots() -> tuple[Path, Path]:
    """Where made data may lie: the cache folder, and this user's own folder in a shared one."""
    return cache_folder(), cache_folder() / f"user-{_user()}"


def final_path(*names: str) -> Path:
    """Where the folder `names` lies below the cache folder, made or not.

    Another user could put anything into what is theirs: if that user owns any of it, it lies in
    this user's own folder instead.

    Raises:
        DataError: If that is another user's, too.
    """
    for root in roots():
        target = root.joinpath(*names)
        above = [path for path in target.parents if path.is_relative_to(root)]
        lock = target.with_name(f"{target.name}.lock")
        if all(map(is_own, (*above, target, lock, *_below(target)))):
            return target
    problem = "another user owns it or what is in it"
    raise DataError(f"{root}: {problem}. Name a folder of your own by DMLRAY_CACHE.")


def is_own(path: Path) -> bool:
    """Whether `path`, and where it leads if it is a link, is this user's or root's, or missing."""
    try:
        owners = {path.lstat().st_uid, path.stat().st_uid}
    except (FileNotFoundError, NotADirectoryError):
        return not path.is_symlink()
    except OSError:  # it lies in a folder that this user cannot enter
        return False
    return owners <= {0, _user()} or owners <= {0, _user_on_disk(cache_folder())}


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
                if roots()[1] in target.parents:
                    reason = "holds what belongs to another user, which is not used"
                    _logger.warning("%s: %s; made anew in %s", cache_folder(), reason, target)
                _replace(target, is_whole, make)
    except OSError as error:
        failure = storage_error(error)
        if isinstance(failure, DiskFull):
            raise failure from error
        reason = error.strerror or str(error)
        advice = "DMLRAY_CACHE names another folder"
        raise DataError(f"{target}: cannot be written: {reason}; {advice}.") from error


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
    """What this user's processes began to make in `folder`, by the locks and halves they left."""
    left = filter(is_own, folder.glob("*"))
    names = (path.name for path in left if path.suffix == ".lock" or PART in path.name)
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


def _below(target: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(target):
        yield from (Path(folder, name) for name in (*folders, *files))


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0  # as os.stat has it on Windows


@lru_cache
def _user_on_disk(folder: Path) -> int:
    """The owner of what this user makes in `folder`: some network disks map users."""
    try:
        with TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return _user()
