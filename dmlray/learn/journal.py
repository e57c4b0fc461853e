"""metrics.jsonl: one line per epoch, the memory of a run."""

import json
from pathlib import Path
from typing import Any

from dmlray.storage import write_text


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
