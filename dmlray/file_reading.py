"""Read regular files of bounded size; refuse folders, pipes and devices."""

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

_MIB = 1 << 20


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        OSError: If there is no such file, it cannot be read, or it is not a regular file.
    """
    # Opening a pipe blocks. Checking the descriptor, not the path, excludes a race.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "Is a pipe or a device, not a regular file", str(path))


def read_bytes(path: Path, most: int | None = None) -> bytes:
    """Read a regular file of at most `most` bytes.

    Raises:
        OSError: As `open_regular`.
        ValueError: If it is larger than `most`.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise ValueError(f"has {size / _MIB:,.0f} MiB. Allowed: {most / _MIB:g} MiB")
        return file.read()


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal, as `sha256sum` prints it.

    Raises:
        OSError: As `open_regular`.
    """
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(_MIB):
            digest.update(block)
    return digest.hexdigest()


def reason(error: OSError | ValueError) -> str:
    """Describe why a file cannot be used; the text follows its path in a message."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error)


def read_json(path: Path, most: int = 64 * _MIB) -> Any:
    """Read strict JSON in UTF-8: no duplicate keys, no NaN or infinity.

    Raises:
        OSError: If there is no such file, it cannot be read, or it is not a regular file.
        ValueError: If it is anything else; the text is the reason, in one line.
    """
    return parse_json(read_bytes(path, most))


def parse_json(text: bytes) -> Any:
    """Parse strict JSON in UTF-8, as `read_json` does.

    Raises:
        ValueError: If it is anything else.
    """
    try:
        return json.loads(
            text.decode("utf-8"), object_pairs_hook=_mapping, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno} column {error.colno}"
        raise ValueError(f"is not JSON: {error.msg} at {position}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("has a duplicate key")
    return mapping


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")
