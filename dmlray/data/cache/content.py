"""Short hashes of file contents: exact for photos, sampled for larger files."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from dmlray.data import boxes
from dmlray.data.cache.findings import refusal
from dmlray.file_reading import open_regular

WHOLE = 1 << 20  # bytes up to which a file is hashed whole
BLOCK, BLOCKS = 1 << 16, 16  # of larger files: evenly spread parts, including both ends
BATCH = 64  # files per task of a thread
# Threads wait for the disk, but more threads than cores double the hashing time.
THREADS = min(8, max(2, os.cpu_count() or 1))


class Content(NamedTuple):
    """A file's size in bytes, its modification time in ns and the hash (16 bytes) of its content.

    Large files of equal size that differ only outside the sampled parts have equal hashes.
    """

    size: int
    modified: int
    digest: bytes


def contents(root: Path, files: Sequence[str]) -> list[Content]:
    """Read and hash all `files` below `root`, in parallel.

    Raises:
        DataError: If files cannot be read; lists them.
    """
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    with ThreadPoolExecutor(THREADS) as pool:
        read = pool.map(lambda batch: [_content(root / file) for file in batch], batches)
        results = [result for batch in read for result in batch]
    failed = {file: why for file, why in zip(files, results, strict=True) if isinstance(why, str)}
    if failed:
        raise refusal(root, failed, len(files))
    return [result for result in results if isinstance(result, Content)]


def content(path: Path) -> Content:
    """Read and hash one file; of a box, the whole file.

    Raises:
        OSError: If it cannot be read or is not a regular file.
    """
    with open_regular(boxes.file_of(path)) as file:
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
