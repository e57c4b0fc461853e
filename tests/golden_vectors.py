"""The authors' own numbers: which files there are, and which ones a test has read.

They lie in tests/golden, whose READMEs say how they were made; DMLRAY_GOLDEN names other ones.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(os.environ.get("DMLRAY_GOLDEN", Path(__file__).with_name("golden"))).resolve()
consumed: set[str] = set()


def files(room: str, pattern: str) -> list[Any]:
    """One test parameter per file of `room` that matches; a skipped one where there is none."""
    found = sorted((ROOT / room).glob(pattern))
    if not found:
        reason = f"no {room}/{pattern} below {ROOT}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=f"no {pattern}")]
    return [pytest.param(path, id=path.stem) for path in found]


def load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of one file."""
    consumed.add(str(path))
    with np.load(path) as arrays:
        return dict(arrays)
