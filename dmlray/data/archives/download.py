"""Download official archives: resumable, accepted only if the checksum matches.

Public URLs disappear, so each error message names the command for a manually downloaded file.
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
TRIES = 5  # connections; each resumes where the previous one was cut
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
    """Download `source` into `folder`, resuming `FILE.partial`, and return the verified file.

    Args:
        progress: Called with (bytes done, total bytes).

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
                    f"{target}: is not the official file ({source.checksum}): it is truncated or"
                    " another file. Remove it and run the command again."
                )
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{folder}: {source.file} cannot be written there: {reason}.") from error
    return target


def _download(source: Source, target: Path, progress: Progress) -> None:
    partial = target.with_name(f"{target.name}.partial")
    for _ in range(TRIES):
        if _length(partial) >= source.size:
            break
        _resume(source, partial, progress)
    if _length(partial) < source.size:
        raise DataError(
            f"{source.url}: the connection was cut {TRIES} times, after {_length(partial)} of"
            f" {source.size} bytes. They are kept: run the command again to continue."
        )
    if not _is_right(source, partial):
        partial.unlink()
        reason = f"the download does not match {source.checksum} and was removed"
        raise _unreachable(source, target.parent, reason)
    partial.replace(target)


def _resume(source: Source, partial: Path, progress: Progress) -> None:
    """Append the missing bytes until the end, or until the connection is cut."""
    done = _length(partial)
    _check_space(partial.parent, source.size - done)
    with _request(source, done, partial.parent) as response:
        if response.status != 206:
            done = 0  # the server does not support ranges
        length = response.headers.get("Content-Length")
        if length is not None and length != str(source.size - done):
            reason = f"it offers {length} bytes, expected {source.size - done}"
            raise _unreachable(source, partial.parent, reason)
        with partial.open("ab" if done else "wb") as file:
            for block in _blocks(response):
                file.write(block)
                done += len(block)
                progress(done, source.size)
                if done >= source.size:
                    break


def _request(source: Source, offset: int, folder: Path) -> HTTPResponse:
    headers = {"User-Agent": "dmlray"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        response: HTTPResponse = urlopen(Request(source.url, headers=headers), timeout=TIMEOUT)
    except HTTPError as error:
        error.close()
        raise _unreachable(source, folder, f"HTTP status {error.code}") from error
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, URLError) else error
        raise _unreachable(source, folder, str(reason) or type(reason).__name__) from error
    return response


def _blocks(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the body until it ends or the connection is cut; the caller compares the length."""
    try:
        while block := response.read(BLOCK):
            yield block
    except (OSError, HTTPException):
        return


def _is_right(source: Source, path: Path) -> bool:
    """Hash the file on disk, which also detects wrongly resumed parts and disk errors."""
    algorithm, _, expected = source.checksum.partition(":")
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest() == expected


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_space(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{folder}: the download needs {size / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB"
            " free. Free disk space, or use a folder on a larger disk."
        )


def _unreachable(source: Source, folder: Path, reason: str) -> DataError:
    """Error for a file that must be downloaded manually."""
    file = shlex.quote(str(folder / source.file))
    return DataError(
        f"{source.url}: cannot be fetched ({reason.splitlines()[0][:120]}). Put {source.file} from"
        f" this or another source into {folder} and run: "
        f"dmlray data prepare {source.dataset} --from {file}"
    )
