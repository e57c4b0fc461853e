"""metrics.jsonl, the log of a run with one line per epoch; and progress between epochs."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter

from dmlray.atomic_files import write_json, write_text
from dmlray.errors import DataError
from dmlray.file_reading import parse_json, read_bytes, reason
from dmlray.json_schema import FromOne, FromZero, Text, read_checked

SPEED = "images_per_second"  # of the training steps of an epoch, on all devices together
_MAX_BYTES = 256 << 20  # 10,000 epochs of many metrics take a few MB


class Count(NamedTuple):
    """Progress of a long computation: steps done, of a total."""

    title: Text
    done: FromZero
    total: FromOne


_COUNT = TypeAdapter(Count)


def read(path: Path) -> list[dict[str, Any]]:
    """Read all valid lines; a killed process may leave part of a line.

    Epochs may be missing or duplicate, which a caller that needs all of them has to check.

    Raises:
        DataError: If it is not a regular file or cannot be read.
    """
    try:
        content = read_bytes(path, _MAX_BYTES)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {reason(error)}; delete it and resume the run") from None
    return [line for text in content.split(b"\n")[:-1] if (line := _line(text))]


def _line(text: bytes) -> dict[str, Any] | None:
    """Parse an epoch and its metrics; return None if they are not valid."""
    try:
        line = parse_json(text)
    except ValueError:
        return None
    if not isinstance(line, dict) or not all(map(_is_finite, line.values())):
        return None
    epoch = line.get("epoch")
    return line if isinstance(epoch, int) and epoch >= 1 else None


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def rewind(path: Path, epoch: int) -> None:
    """Remove the lines after `epoch`, which a resumed run will append again."""
    kept = [line for line in read(path) if line["epoch"] <= epoch]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def append(path: Path, line: dict[str, Any]) -> None:
    """Append one line in a single write."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def count(path: Path, title: str) -> Callable[[int, int], None]:
    """Return a function of (done, total) that writes progress, which `counted` reads."""
    return lambda done, total: write_json(path, Count(title, done, total)._asdict())


def counted(path: Path) -> Count | None:
    """Read the progress that another process writes, None if there is none."""
    try:
        return read_checked(path, _COUNT)
    except (OSError, ValueError):
        return None
