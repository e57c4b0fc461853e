"""Embeddings in .npy files: written with their SHA-256, checked before use."""

import csv
from collections.abc import Iterable
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from dmlray.atomic_files import whole_file, write_array
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset
from dmlray.data.roles import ROLES, Roles, roles_of
from dmlray.file_reading import open_regular, read_bytes, sha256

_MAGIC = b"\x93NUMPY"
_TOLERANCE = 1e-2  # of a length: rows normalised in half precision are off by 0.001
_HEADS = (["path", "label"], ["path", "label", "role"], ["path", "label", "role", "group"])
_MAX_ITEMS = 1 << 30  # bytes of items.csv: millions of images


def write_embeddings(path: Path, rows: Tensor) -> str:
    """Write rows (N, D) as float32 atomically; return the SHA-256 of the file."""
    array = np.ascontiguousarray(rows.cpu().numpy(), dtype=np.float32)
    write_array(path, array)
    return sha256(path)


def write_items(path: Path, dataset: Dataset, subset: Subset) -> None:
    """Write path, relative to the data set's root, and class of each image of `subset` as CSV.

    With roles also its role and, where there are groups, the number of its group.
    """
    columns: dict[str, Iterable[object]] = {
        "path": [dataset.files[row] for row in subset.rows],
        "label": [dataset.classes[dataset.labels[row]] for row in subset.rows],
    }
    if subset.roles is not None:
        columns["role"] = subset.roles.names()
        if subset.roles.groups is not None:
            columns["group"] = subset.roles.groups
    table = StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerows([columns, *zip(*columns.values(), strict=True)])
    with whole_file(path) as temporary:
        temporary.write_bytes(table.getvalue().encode("utf-8", "surrogateescape"))


class Items(NamedTuple):
    """Paths and classes (N,) of images, and their roles."""

    files: tuple[str, ...]
    classes: tuple[str, ...]
    roles: Roles | None = None


def read_items(path: Path) -> Items:
    """Read what `write_items` wrote.

    Raises:
        OSError: If there is no such file, or it cannot be read.
        ValueError: If it holds anything else; the text is the reason, in one line.
    """
    text = read_bytes(path, _MAX_ITEMS).decode("utf-8", "surrogateescape")
    try:
        head, *rows = csv.reader(StringIO(text), strict=True)
    except (ValueError, csv.Error):
        raise ValueError("is not a table of images") from None
    if head not in _HEADS or not rows or any(len(row) != len(head) for row in rows):
        raise ValueError("is not a table with the columns path and label")
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    roles = columns.get("role")
    if roles and not set(roles) <= {*ROLES}:
        raise ValueError(f"has a role other than {', '.join(ROLES)}")
    known = roles_of(roles, columns.get("group")) if roles else None
    return Items(columns["path"], columns["label"], known)


def read_embeddings(path: Path, shape: tuple[int, int], expected: str | None) -> np.ndarray:
    """Memory-map the unit rows (N, D) of a file that `write_embeddings` wrote.

    A row of zeros is allowed: normalising does not change it.

    Args:
        path: File to map.
        shape: (N, D) of the scores that belong to the embeddings.
        expected: SHA-256 of the file; None for older runs, which did not record it.

    Raises:
        OSError: If there is no such file, it cannot be read, or it is not a regular file.
        ValueError: If it holds anything else; the text is the reason, in one line.
    """
    rows = _mapped(path)
    if rows.shape != shape:
        raise ValueError(f"has shape {rows.shape}, but its scores {shape}")
    if rows.dtype != np.float32:
        raise ValueError(f"holds {rows.dtype} numbers. Allowed: float32")
    if expected and sha256(path) != expected:
        raise ValueError("was changed after its scores were computed (its SHA-256 differs)")
    with np.errstate(all="ignore"):
        lengths = np.sqrt(np.einsum("nd,nd->n", rows, rows))
    invalid = ~((np.abs(lengths - 1) < _TOLERANCE) | (lengths == 0))
    if invalid.any():
        row = int(invalid.argmax())
        raise ValueError(f"row {row} has length {lengths[row]:g}. Allowed: 1")
    return rows


def _mapped(path: Path) -> np.ndarray:
    with open_regular(path) as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError("cannot be read: is not a .npy file")
    try:
        rows: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # NumPy raises many types for a damaged header
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"cannot be read: {text}") from None
    return rows
