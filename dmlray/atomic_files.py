"""Atomic file writes, and messages for file system errors."""

import errno
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from dmlray.errors import DiskFullError, StorageError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which is renamed to `path` when the block succeeds.

    The folder must exist: one that was moved away is not created again.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a failed write names no file
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_array(path: Path, rows: np.ndarray) -> None:
    """Write an array as .npy atomically."""
    packed = BytesIO()  # numpy's writer does not report a full disk
    np.save(packed, rows, allow_pickle=False)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def storage_error(error: BaseException) -> StorageError | None:
    """Convert a file system error to a `StorageError`; return None for any other error."""
    if isinstance(error, StorageError):
        return error
    if not isinstance(error, OSError):
        return None
    file = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    where = f"{file}: " if file else ""
    if error.errno in _FULL:
        return DiskFullError(f"{where}the disk is full: free some space")
    return StorageError(f"{where}{error.strerror}") if file and error.strerror else None
