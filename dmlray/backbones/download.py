"""Published weights: fetched once per machine, checked by the hash in their name."""

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
_SILENCE_SECONDS = 30.0


def fetched(name: str, address: str) -> Path:
    """The file at `address` in the cache of torch.hub, whole; TORCH_HOME says where that is.

    Raises:
        DataError: If it is not there and cannot be fetched.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", PurePosixPath(urlparse(address).path).name)
    try:
        if not _is_whole(path):
            _fetch(address, path)
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: another hash
        raise unreachable(name, address, error) from error
    return path


def unreachable(name: str, address: str, error: Exception) -> DataError:
    """The one sentence for weights that cannot be fetched."""
    reason = (str(error).splitlines() or [""])[0][:120] or type(error).__name__
    return DataError(
        f"backbone {name}: its pretrained weights cannot be fetched from {address} ({reason}); "
        "name that file with backbone.weights=FILE, or start from random ones with "
        "backbone.weights=none"
    )


def _fetch(address: str, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), _patience():  # of all workers of a machine one fetches
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
    """The first digits of the file's SHA-256, where its publisher put them into its name."""
    found = _HASH.search(path.name)
    return found.group(1) if found else None


@contextmanager
def _patience() -> Iterator[None]:
    """Give up on an address that says nothing: torch.hub itself would wait for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SILENCE_SECONDS)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
