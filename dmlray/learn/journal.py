"""metrics.jsonl: one line per epoch, the memory of a run; and how far it is between epochs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from dmlray.storage import write_json, write_text


class Count(NamedTuple):
    """So many steps are done, of so many in all."""

    title: str
    done: int
    total: int


def read(path: Path) -> list[dict[str, Any]]:
    """All lines that can be read; a killed process leaves half a line, a broken disk worse."""
    content = path.read_bytes() if path.exists() else b""
    return [line for text in content.split(b"\n")[:-1] if (line := _line(text))]


def _line(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("epoch"), int) else None


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
        return Count(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
