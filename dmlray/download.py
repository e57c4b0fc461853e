"""Download public files over HTTP: once, resumable, verified by their checksum."""

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
TRIES = 5  # connections; each resumes where the previous one was cut
BLOCK = 2**18  # bytes

Progress = Callable[[int, int], None]  # (bytes done, total bytes as far as known)


class DownloadError(Exception):
    """Reason for a failed download: part of a sentence, without the address."""


@dataclass(frozen=True)
class Remote:
    """A public file.

    Attributes:
        checksum: ALGORITHM:HEX, possibly only its first digits; None if none is published.
        size: Bytes; None if not known in advance.
    """

    url: str
    checksum: str | None = None
    size: int | None = None

    def matches(self, path: Path) -> bool:
        """Check the checksum of the file on disk, which also covers resumed parts."""
        if self.checksum is None:
            return path.is_file()
        algorithm, _, wanted = self.checksum.partition(":")
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
        return digest.hexdigest().startswith(wanted)


def fetch(remote: Remote, target: Path, progress: Progress = lambda done, size: None) -> None:
    """Download `remote` to `target` unless it exists; only one of several processes does.

    After a cut connection or a kill, received bytes are in `TARGET.partial`; with a checksum the
    next call resumes from them.

    Raises:
        DownloadError: If the address is unreachable, sends another file, or the disk is not
            writable.
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
    """Append the missing bytes until the end, or until the connection is cut.

    Returns:
        The size of the whole file; None if only the checksum shows whether it is complete.
    """
    done = _length(partial)
    if remote.size is not None and done >= remote.size:
        return remote.size
    answer = _request(remote.url, done)
    if answer is None:
        return done
    with answer:
        if answer.status != 206:
            done = 0  # the server does not support ranges
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
    """Return the size of the whole file, given that the response starts after `done` bytes."""
    length = answer.headers.get("Content-Length")
    if length is None or not length.isdigit():
        if remote.size is None and remote.checksum is None:
            raise DownloadError("the length of the file is unknown")
        return remote.size
    if remote.size is not None and done + int(length) != remote.size:
        raise DownloadError(f"it offers {length} bytes where {remote.size - done} are due")
    return done + int(length)


def _request(url: str, offset: int) -> HTTPResponse | None:
    """Request the file from `offset` on; return None if the server has no more bytes."""
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
    """Yield the body until the end or an error; the caller checks the size."""
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
        raise DownloadError(f"{due}: free some space, or use a folder on a larger disk")
