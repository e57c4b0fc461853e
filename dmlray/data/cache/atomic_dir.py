"""Generated folders in this machine's cache: made once, and completely or not at all."""

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
from dmlray.errors import DataError, DiskFullError

_logger = logging.getLogger(__name__)
PART = ".partial-"  # followed by host and process id


def cache_folder() -> Path:
    """Folder for generated data: DMLRAY_CACHE, else `~/.cache/dmlray`."""
    named = os.environ.get("DMLRAY_CACHE")
    return Path(named).expanduser().absolute() if named else Path.home() / ".cache" / "dmlray"


def roots() -> tuple[Path, Path]:
    """Folders for generated data: the cache folder, and this user's folder in a shared one."""
    return cache_folder(), cache_folder() / f"user-{_user()}"


def final_path(*names: str) -> Path:
    """Path of the folder `names` below the cache folder, whether or not it exists.

    Files of other users are not trusted: if another user owns any part of it, the path lies in
    this user's folder instead.

    Raises:
        DataError: If another user owns that, too.
    """
    for root in roots():
        target = root.joinpath(*names)
        above = [path for path in target.parents if path.is_relative_to(root)]
        lock = target.with_name(f"{target.name}.lock")
        if all(map(is_own, (*above, target, lock, *_below(target)))):
            return target
    problem = "another user owns it or its content"
    raise DataError(f"{root}: {problem}. Set DMLRAY_CACHE to your own folder.")


def is_own(path: Path) -> bool:
    """Whether `path`, and its target if it is a link, is owned by this user or root, or missing."""
    try:
        owners = {path.lstat().st_uid, path.stat().st_uid}
    except (FileNotFoundError, NotADirectoryError):
        return not path.is_symlink()
    except OSError:  # in a folder that this user cannot enter
        return False
    return owners <= {0, _user()} or owners <= {0, _user_on_disk(cache_folder())}


def make_whole(
    target: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]
) -> None:
    """Call `make` for the folder `target` in one process of this machine, unless `is_whole`.

    Machines that share the folder wait for each other if its file system supports flock (NFS
    does, unless mounted with `nolock`). Otherwise each may make it once: the first to finish wins,
    the others use its result, and a partial folder is never visible.

    Raises:
        DataError: If the folder cannot be written.
        DiskFullError: If the disk is full.
    """
    if is_whole(target):
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if not is_whole(target):
                if roots()[1] in target.parents:
                    reason = "holds files of another user, which are not used"
                    _logger.warning("%s: %s; made again in %s", cache_folder(), reason, target)
                _replace(target, is_whole, make)
    except OSError as error:
        failure = storage_error(error)
        if isinstance(failure, DiskFullError):
            raise failure from error
        reason = error.strerror or str(error)
        advice = "set DMLRAY_CACHE to another folder"
        raise DataError(f"{target}: cannot be written: {reason}; {advice}.") from error


def remove(target: Path, whole: bool = True) -> bool:
    """Remove what killed processes left beside the folder `target` and, if `whole`, `target`.

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
    """Targets in `folder` for which this user's processes left locks or partial folders."""
    own = filter(is_own, folder.glob("*"))
    names = (path.name for path in own if path.suffix == ".lock" or PART in path.name)
    return {folder / name.removesuffix(".lock").partition(PART)[0] for name in names}


def _replace(target: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]) -> None:
    # This process holds the lock, so any partial folder is of a killed process.
    host = socket.gethostname()
    _remove_partial(target, host)
    partial = target.with_name(f"{target.name}{PART}{host}-{os.getpid()}")
    partial.mkdir()
    try:
        make(partial)
        if not is_whole(target):  # another machine may have finished first
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_partial(target: Path, host: str) -> None:
    for partial in target.parent.glob(f"{target.name}{PART}{host}*"):
        shutil.rmtree(partial, ignore_errors=True)


def _below(target: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(target):
        yield from (Path(folder, name) for name in (*folders, *files))


def _user() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0  # the st_uid of os.stat on Windows


@lru_cache
def _user_on_disk(folder: Path) -> int:
    """Owner of files that this user makes in `folder`: some network disks map users."""
    try:
        with TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_uid
    except OSError:
        return _user()
