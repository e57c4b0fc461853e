"""Safe, resumable extraction: no file outside the folder, none half-written.

`extractall` is not used: `tarfile` has no filter before Python 3.10.12 and 3.11.4, `zipfile` has
none at all, and neither resumes after a kill.
"""

import json
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from dmlray.atomic_files import whole_file, write_json
from dmlray.data.archives.archive_reader import DAMAGE, ArchiveEntry, checked, opened
from dmlray.data.cache.cache_build import Progress
from dmlray.errors import DataError

LISTS = frozenset({".mat", ".txt"})  # annotation files, copied unchanged


def extract_or_copy(file: Path, root: Path, progress: Progress | None = None) -> Path:
    """Unpack an archive below `root`, or copy an annotation file there; see `unpack`."""
    if file.suffix.lower() not in LISTS:
        return unpack(file, root, progress)
    _check_exists(file)
    target = root / file.name
    with _explained(file, root, lambda: "while it was copied"):
        if not (target.exists() and file.samefile(target)):
            root.mkdir(parents=True, exist_ok=True)
            with whole_file(target) as temporary:
                shutil.copyfile(file, temporary)
    return root


def unpack(archive: Path, root: Path, progress: Progress | None = None) -> Path:
    """Unpack a tar (plain, gz, bz2, xz) or zip, detected by content, below `root`.

    Files of full size are not written again, so that the next call resumes an interrupted one and
    a call after a complete one only checks the files.

    Args:
        archive: File to unpack.
        root: Folder that takes the files.
        progress: Called with (files done, total files).

    Returns:
        `root`.

    Raises:
        DataError: If the archive is missing, damaged or cut short, holds a link, a device or a
            name outside `root`, unpacks to too much, or the disk is full.
    """
    _check_exists(archive)
    # A generator, so that exceptions of `progress` are not reported as damage.
    for done, count in _unpack(archive, root):
        if progress:
            progress(done, count)
    return root


def _unpack(archive: Path, root: Path) -> Iterator[tuple[int, int]]:
    files: dict[str, ArchiveEntry] = {}
    with _explained(archive, root, lambda: f"after {len(files)} files"):
        if _is_unpacked(archive, root):
            return
        with opened(archive) as members:
            for path, member in checked(archive, members):
                files.pop(path, None)  # as in tar the later entry wins, and is read in its order
                files[path] = member
            yield from _write_missing(archive, root, files)
        sizes = {path: member.size for path, member in files.items()}
        write_json(_marker(archive, root), {"archive": _identity(archive), "files": sizes})


def _write_missing(
    archive: Path, root: Path, files: dict[str, ArchiveEntry]
) -> Iterator[tuple[int, int]]:
    """Write the files that are missing or incomplete; yield (files done, total files)."""
    root.mkdir(parents=True, exist_ok=True)
    missing = [path for path, member in files.items() if not _is_there(root / path, member.size)]
    _check_space(root, sum(files[path].size for path in missing))
    for done, path in enumerate(missing, start=len(files) - len(missing)):
        yield done, len(files)
        with _explained(archive, root, partial("in {!r}".format, path)):
            _write(root / path, files[path])
    yield len(files), len(files)


def _write(path: Path, member: ArchiveEntry) -> None:
    content = member.open()
    if content is None:
        raise tarfile.ReadError("no content")
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, whole_file(path) as temporary, temporary.open("wb") as file:
        shutil.copyfileobj(content, file, 2**18)


@contextmanager
def _explained(archive: Path, root: Path, where: Callable[[], str]) -> Iterator[None]:
    """Map errors of the readers and the disk to a DataError; `where` describes the progress."""
    try:
        yield
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            file = f" ({error.filename!r})" if error.filename else ""
            problem = f"cannot be unpacked into {root}: {error.strerror}{file}."
        else:
            problem = (
                f"is damaged or truncated, {where()} ({str(error) or type(error).__name__})."
                " Download it again; unpacked files are kept."
            )
        raise DataError(f"{archive}: {problem}") from error


def _check_exists(file: Path) -> None:
    if not file.is_file():
        raise DataError(f"{file}: no such file.")


def _check_space(root: Path, size: int) -> None:
    free = shutil.disk_usage(root).free
    if size > free:
        raise DataError(
            f"{root}: unpacking needs {size / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB"
            " free. Free disk space, or use a folder on a larger disk."
        )


def _is_unpacked(archive: Path, root: Path) -> bool:
    """Whether this archive was unpacked completely and its files still exist."""
    identity = _identity(archive)
    try:
        marker = json.loads(_marker(archive, root).read_text(encoding="utf-8"))
        return marker["archive"] == identity and all(
            _is_there(root / path, size) for path, size in marker["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_there(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size == size


def _marker(archive: Path, root: Path) -> Path:
    return root / f".{archive.name}.unpacked"


def _identity(archive: Path) -> list[int]:
    """Size in bytes and modification time in ns: a hash would read the whole archive."""
    status = archive.stat()
    return [status.st_size, status.st_mtime_ns]
