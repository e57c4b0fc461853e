"""Official archives, fetched: resumable, and believed only when their hash is right.

Public addresses rot, so every failure says how to go on with a file that came by another way.
"""

import hashlib
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

from dmlray.data.cache.cache_build import Progress
from dmlray.errors import DataError

TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # connections; each goes on where the one before was cut
BLOCK = 2**18  # bytes


@dataclass(frozen=True)
class Source:
    """A public file of the data set `dataset`: `size` in bytes, `checksum` as ALGORITHM:HEX."""

    dataset: str
    file: str
    url: str
    size: int
    checksum: str


def fetch(source: Source, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch `source` into `folder`, going on with `FILE.partial`; the file, checked, is returned.

    Args:
        progress: Called with (bytes done, bytes in all).

    Raises:
        DataError: If the address cannot be reached, gives another file, or the disk is full.
    """
    target = folder / source.file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{source.file}.lock"):
            if not target.exists():
                _download(source, target, progress or (lambda done, size: None))
            elif not _is_right(source, target):
                raise DataError(
                    f"{target}: is not the official file ({source.checksum}): it was cut short or"
                    " is another one. Take it away and run the command again."
                )
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{folder}: {source.file} cannot be kept there: {reason}.") from error
    return target


def _download(source: Source, target: Path, progress: Progress) -> None:
    partial = target.with_name(f"{target.name}.partial")
    for _ in range(TRIES):
        if _length(partial) >= source.size:
            break
        _go_on(source, partial, progress)
    if _length(partial) < source.size:
        raise DataError(
            f"{source.url}: the connection was cut {TRIES} times, after {_length(partial)} of"
            f" {source.size} bytes. They are kept: run the command again to go on."
        )
    if not _is_right(source, partial):
        partial.unlink()
        raise _unreachable(source, target.parent, f"what came is not {source.checksum}; removed")
    partial.replace(target)


def _go_on(source: Source, partial: Path, progress: Progress) -> None:
    """Append what is missing until the end, or until the connection is cut."""
    done = _length(partial)
    _check_space(partial.parent, source.size - done)
    with _ask(source, done, partial.parent) as answer:
        if answer.status != 206:
            done = 0  # the server cannot begin in the middle
        length = answer.headers.get("Content-Length")
        if length is not None and length != str(source.size - done):
            reason = f"it offers {length} bytes where {source.size - done} are due"
            raise _unreachable(source, partial.parent, reason)
        with partial.open("ab" if done else "wb") as file:
            for block in _blocks(answer):
                file.write(block)
                done += len(block)
                progress(done, source.size)
                if done >= source.size:
                    break


def _ask(source: Source, offset: int, folder: Path) -> HTTPResponse:
    headers = {"User-Agent": "dmlray"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        answer: HTTPResponse = urlopen(Request(source.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        raise _unreachable(source, folder, f"HTTP status {error.code}") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _unreachable(source, folder, str(reason) or type(reason).__name__) from error
    return answer


def _blocks(answer: HTTPResponse) -> Iterator[bytes]:
    """The body, as far as it comes; the caller counts."""
    try:
        while block := answer.read(BLOCK):
            yield block
    except (OSError, HTTPException):
        return


def _is_right(source: Source, path: Path) -> bool:
    """Hash what lies on the disk, so that a resumed half and a bad disk are seen too."""
    algorithm, _, wanted = source.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == wanted


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder}: {size / 1e9:.2f} GB are to be fetched and the disk has {free / 1e9:.2f} GB"
            " free. Make room, or name a folder on a larger disk."
        )


def _unreachable(source: Source, folder: Path, reason: str) -> DataError:
    """The one sentence for a file that has to come by another way."""
    file = shlex.quote(str(folder / source.file))
    return DataError(
        f"{source.url}: cannot be fetched ({reason.splitlines()[0][:120]}). Put {source.file} from"
        f" there or elsewhere into {folder} and run: "
        f"dmlray data prepare {source.dataset} --from {file}"
    )
