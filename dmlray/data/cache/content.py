"""The content of files as short hashes: exact for photos, sampled for what is larger."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from dmlray.data.cache.findings import refusal
from dmlray.file_reading import open_regular

WHOLE = 1 << 20  # bytes up to which a file is hashed whole
BLOCK, BLOCKS = 1 << 16, 16  # of a larger one: evenly spread parts, both ends among them
BATCH = 64  # files per task of a thread
# They wait for the disk; more than there are cores double the time that hashing takes.
THREADS = min(8, max(2, os.cpu_count() or 1))


class Content(NamedTuple):
    """A file's size in bytes, its modification time in ns and the hash (16 bytes) of its content.

    Larger files of equal size that differ between the parts that are read have equal hashes.
    """

    size: int
    modified: int
    digest: bytes


def contents(root: Path, files: Sequence[str]) -> list[Content]:
    """Read the content of all `files` below `root`, in parallel.

    Raises:
        DataError: If some cannot be read; they are listed.
    """
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    with ThreadPoolExecutor(THREADS) as pool:
        read = pool.map(lambda batch: [_content(root / file) for file in batch], batches)
        found = [one for batch in read for one in batch]
    failed = {file: one for file, one in zip(files, found, strict=True) if isinstance(one, str)}
    if failed:
        raise refusal(root, failed, len(files))
    return [one for one in found if isinstance(one, Content)]


def content(path: Path) -> Content:
    """Read one file.

    Raises:
        OSError: If it cannot be read or is no regular file.
    """
    with open_regular(path) as file:
        status = os.fstat(file.fileno())
        digest = hashlib.sha256()
        if status.st_size <= WHOLE:
            digest.update(file.read())
        else:
            for part in range(BLOCKS):
                file.seek(part * (status.st_size - BLOCK) // (BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return Content(status.st_size, status.st_mtime_ns, digest.digest()[:16])


def _content(path: Path) -> Content | str:
    try:
        return content(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
