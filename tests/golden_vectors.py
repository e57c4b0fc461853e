"""The authors' own numbers: which files there are, and which ones a test has read.

They lie in tests/golden, whose READMEs say how they were made; DMLRAY_GOLDEN names other ones.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from torch import Tensor

ROOT = Path(os.environ.get("DMLRAY_GOLDEN", Path(__file__).with_name("golden"))).resolve()
consumed: set[str] = set()


def files(folder: str, pattern: str) -> list[Any]:
    """One test parameter per matching file of `folder`; a skipped one where there is none."""
    found = sorted((ROOT / folder).glob(pattern))
    if not found:
        reason = f"no {folder}/{pattern} below {ROOT}"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id=f"no {pattern}")]
    return [pytest.param(path, id=path.stem) for path in found]


def load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of one file."""
    consumed.add(str(path))
    with np.load(path) as arrays:
        return dict(arrays)


def assert_close(
    found: Tensor,
    expected: Tensor,
    single: bool | None = None,
    tolerance: float = 5e-4,
    *,
    double: float = 1e-9,
    rtol: float = 0.0,
    name: str = "",
) -> None:
    """Compare relative to the largest number, as the golden README does; scalars are doubles.

    `single` is whether the authors computed in float32 (default: the type of `found`), to which
    `tolerance` applies, and `rtol` relative to each number; `double` applies to float64.
    """
    import torch  # not in the process that only distributes the tests

    single = found.dtype != torch.float64 if single is None else single
    atol = (tolerance if single else double) * max(1.0, expected.abs().max().item())
    torch.testing.assert_close(
        found.detach(), expected, rtol=rtol if single else 0.0, atol=atol, check_dtype=False,
        msg=lambda message: f"{name}: {message}",
    )  # fmt: skip


# As the README of idml_dcml suggests.
assert_close_idml_dcml = partial(assert_close, tolerance=2e-5, rtol=2e-4, double=1e-10)
