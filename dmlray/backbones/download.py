"""Download published weights once per machine; checked by the hash in the file name."""

import hashlib
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import torch
from filelock import FileLock

from dmlray.errors import DataError

_HASH = re.compile(r"-([0-9a-f]{8,64})\.")
_TIMEOUT_SECONDS = 30.0


def fetched(name: str, address: str) -> Path:
    """Return the path of the file at `address` in torch.hub's cache (TORCH_HOME), downloaded once.

    Raises:
        DataError: If it is not in the cache and cannot be downloaded.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlparse(address).path).name)
    try:
        if not _is_whole(path):
            _fetch(address, path)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: wrong hash
        raise unreachable(name, address, error) from error
    return path


def unreachable(name: str, address: str, error: Exception) -> DataError:
    """Error for weights that cannot be downloaded."""
    reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
    return DataError(
        f"backbone {name}: its pretrained weights cannot be fetched from {address} ({reason}); "
        "set backbone.weights=FILE to that file, or use random weights with "
        "backbone.weights=none"
    )


def _fetch(address: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), _timeout():  # one worker of a machine downloads
        if not _is_whole(path):
            torch.hub.download_url_to_file(
                address, str(path), _hash_in(path), progress=sys.stderr.isatty()
            )


def _is_whole(path: Path) -> bool:
    prefix = _hash_in(path)
    if not prefix or not path.is_file():
        return path.is_file()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest().startswith(prefix)


def _hash_in(path: Path) -> str | None:
    """First digits of the file's SHA-256, if its name contains them."""
    match = _HASH.search(path.name)
    return match.group(1) if match else None


@contextmanager
def _timeout() -> Iterator[None]:
    """Set a socket timeout: torch.hub sets none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
