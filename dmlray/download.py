"""Public files over HTTP: fetched once, resumed after a cut connection, checked by their hash."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from filelock import FileLock

TIMEOUT = 30.0  # seconds without a byte
TRIES = 5  # connections; each goes on where the one before was cut
BLOCK = 2**18  # bytes

Progress = Callable[[int, int], None]  # (bytes done, bytes in all, as far as they are known)


class DownloadError(Exception):
    """Why a file was not fetched: a part of a sentence, without the address."""


@dataclass(frozen=True)
class Remote:
    """A public file.

    `checksum` is ALGORITHM:HEX, of which the first digits are enough; None where the publisher
    names none. `size` in bytes; None where it is not known beforehand.
    """

    url: str
    checksum: str | None = None
    size: int | None = None

    def matches(self, path: Path) -> bool:
        """Hash the file on the disk, so that a resumed half and a bad disk are noticed too."""
        if self.checksum is None:
            return path.is_file()
        algorithm, _, wanted = self.checksum.partition(":")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest().startswith(wanted)


def fetch(remote: Remote, target: Path, progress: Progress = lambda done, size: None) -> None:
    """Fetch `remote` to `target` unless it is there; of several processes one does.

    Bytes that came before a connection was cut, or the process killed, lie in `TARGET.partial` and
    are kept for the next call where a checksum can tell that they belong to the file.

    Raises:
        DownloadError: If the address cannot be reached, gives another file, or the disk refuses.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not (target.is_file() and remote.matches(target)):
                _download(remote, target, progress)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DownloadError(f"cannot be kept in {target.parent}: {reason}") from error


def _download(remote: Remote, target: Path, progress: Progress) -> None:
    partial = target.with_name(f"{target.name}.partial")
    if remote.checksum is None:
        partial.unlink(missing_ok=True)
    for _ in range(TRIES):
        size = _continue(remote, partial, progress)
        if size is None or _length(partial) >= size:
            break
    else:
        came = f"after {_length(partial)} of {size} bytes"
        raise DownloadError(
            f"the connection was cut {TRIES} times, {came}; they are kept, so run it again"
        )
    if not remote.matches(partial):
        partial.unlink()
        raise DownloadError(f"what came is not {remote.checksum}; removed")
    partial.replace(target)


def _continue(remote: Remote, partial: Path, progress: Progress) -> int | None:
    """Append what is missing until the end, or until the connection is cut.

    Returns:
        The size of the whole file; None if only the checksum can tell whether it is whole.
    """
    done = _length(partial)
    if remote.size is not None and done >= remote.size:
        return remote.size
    answer = _request(remote.url, done)
    if answer is None:
        return done
    with answer:
        if answer.status != 206:
            done = 0  # the server cannot begin in the middle
        size = _size(remote, answer, done)
        _check_space(partial.parent, (size or 0) - done)
        with partial.open("ab" if done else "wb") as file:
            for block in _blocks(answer):
                file.write(block)
                done += len(block)
                progress(done, max(done, size or 0))
                if size is not None and done >= size:
                    break
    return size


def _size(remote: Remote, answer: HTTPResponse, done: int) -> int | None:
    """The size of the whole file, of which the answer holds what follows `done` bytes."""
    length = answer.headers.get("Content-Length")
    if length is None or not length.isdigit():
        if remote.size is None and remote.checksum is None:
            raise DownloadError("nothing says how long the file is")
        return remote.size
    if remote.size is not None and done + int(length) != remote.size:
        raise DownloadError(f"it offers {length} bytes where {remote.size - done} are due")
    return done + int(length)


def _request(url: str, offset: int) -> HTTPResponse | None:
    """The answer from `offset` bytes on; None if the server has no more than these."""
    headers = {"User-Agent": "dmlray"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        answer: HTTPResponse = urlopen(Request(url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and offset:
            return None
        raise DownloadError(f"HTTP status {error.code}") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        lines = str(reason).splitlines() or [type(reason).__name__]
        raise DownloadError(lines[0][:120]) from error
    return answer


def _blocks(answer: HTTPResponse) -> Iterator[bytes]:
    """The body, as far as it comes; the caller counts."""
    try:
        while block := answer.read(BLOCK):
            yield block
    except (OSError, HTTPException):
        return


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        due = f"{size / 1e9:.2f} GB are due and the disk has {free / 1e9:.2f} GB free"
        raise DownloadError(f"{due}: make room, or name a folder on a larger disk")
