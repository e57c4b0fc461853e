"""metrics.jsonl: one line per epoch, the memory of a run."""

import json
from pathlib import Path
from typing import Any

from dmlray.storage import write_text


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines; the last one may be half-written by a killed process and is left out."""
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
    return lines


def rewind(path: Path, epoch: int) -> None:
    """Forget what lies after `epoch`: a resumed run will say it again."""
    kept = [line for line in read(path) if line["epoch"] <= epoch]
    write_text(path, "".join(json.dumps(line) + "\n" for line in kept))


def append(path: Path, line: dict[str, Any]) -> None:
    """Add one line in a single write."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, allow_nan=False) + "\n")
