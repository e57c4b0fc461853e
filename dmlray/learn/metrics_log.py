"""metrics.jsonl: one line per epoch, the memory of a run; and how far it is between epochs."""

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

_MOST = 256 << 20  # bytes of a journal: 10,000 epochs of many metrics take a few MB


class Count(NamedTuple):
    """So many steps are done, of so many in all."""

    title: Text
    done: FromZero
    total: FromOne


_COUNT = TypeAdapter(Count)


def read(path: Path) -> list[dict[str, Any]]:
    """All lines that can be read; a killed process leaves half a line, a broken disk worse.

    Epochs may lack or stand twice: who needs all of them has to look.

    Raises:
        DataError: If the file is no regular file or cannot be read.
    """
    try:
        content = read_bytes(path, _MOST)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {reason(error)}; delete it and resume the run") from None
    return [line for text in content.split(b"\n")[:-1] if (line := _line(text))]


def _line(text: bytes) -> dict[str, Any] | None:
    """The epoch and its metrics, None if they are not whole."""
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
    """Forget what lies after `epoch`: a resumed run will say it again."""
    kept = [line for line in read(path) if line["epoch"] <= epoch]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one line in a single write."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")


def count(path: Path, title: str) -> Callable[[int, int], None]:
    """A function of (done, all) that another process hears of through `counted`."""
    return lambda done, total: write_json(path, Count(title, done, total)._asdict())


def counted(path: Path) -> Count | None:
    """What is being counted, if anything is."""
    try:
        return read_checked(path, _COUNT)
    except (OSError, ValueError):
        return None
