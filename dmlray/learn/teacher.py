"""Vectors of the training images by a teacher: computed once for a run, read by its trainings.

A file of tensors in the run's folder: `rows` (N, R) of all N images of the training classes, in
the data set's order, with the fingerprint of the images and a remark that names the teacher.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmlray.atomic_files import whole_file
from dmlray.data.batches.loader import BatchLoader, share
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, train_subset
from dmlray.errors import DataError
from dmlray.file_reading import read_bytes, reason
from dmlray.learn.frozen_features import FeatureLoader
from dmlray.learn.process_group import SINGLE_PROCESS, ProcessGroup
from dmlray.tensor_files import parse_tensors, unusable

_MEND = "resume the run to make it"


@dataclass(frozen=True)
class TeacherVectors:
    """Vectors `rows` (N, R) of the images `numbers` (N,) of a data set, in its order.

    `remark` goes into every score of a student.
    """

    rows: Tensor
    numbers: np.ndarray
    remark: str

    def of(self, subset: Subset) -> Tensor:
        """The vectors (n, R) of the images of `subset`, in its order."""
        return self.rows[torch.from_numpy(np.searchsorted(self.numbers, subset.rows))]


def write_vectors(path: Path, rows: Tensor, dataset: Dataset, remark: str) -> None:
    """Write vectors (N, R) of the training images of `dataset`, whole or not at all."""
    packed = BytesIO()
    torch.save({"rows": rows.clone(), "images": dataset.fingerprint, "remark": remark}, packed)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def read_vectors(
    path: Path, dataset: Dataset, group: ProcessGroup = SINGLE_PROCESS
) -> TeacherVectors:
    """Read what `write_vectors` wrote, on the main worker of a group.

    Raises:
        DataError: If the file is missing, damaged or of other images.
    """
    packed = group.broadcast_bytes(lambda: _packed(path))
    numbers = train_subset(dataset).rows
    try:
        content = parse_tensors(path, packed)
        if not _is_usable(content, dataset, len(numbers)):
            raise ValueError("holds no vectors of these training images")
    except ValueError as error:
        raise DataError(f"{path}: {error}; delete it and {_MEND} again") from None
    return TeacherVectors(content["rows"], numbers, content["remark"])


def _packed(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, the teacher's vectors; {_MEND}") from None
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None


def _is_usable(content: Any, dataset: Dataset, images: int) -> bool:
    if not isinstance(content, dict) or content.keys() != {"rows", "images", "remark"}:
        return False
    rows = content["rows"]
    if unusable(rows) or rows.dtype != torch.float32 or rows.dim() != 2 or len(rows) != images:
        return False
    of_these = content["images"] == dataset.fingerprint and isinstance(content["remark"], str)
    return of_these and bool(rows.isfinite().all())


class TaughtLoader:
    """Batches of `images`, with the teacher's vectors (B, R) of each.

    Args:
        images: Determines the order of the images.
        targets: Vectors of all its images (N, R).
        group: Workers that share each batch.
    """

    def __init__(
        self, images: BatchLoader | FeatureLoader, targets: Tensor, group: ProcessGroup
    ) -> None:
        self._images, self._targets, self._group = images, targets, group
        self.batches_per_epoch = images.batches_per_epoch
        self.images_per_batch = images.images_per_batch
        self.steps_without_pairs = images.steps_without_pairs

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images or features, labels (B,) and targets (B, R) of each batch of an epoch."""
        plan = self._images.plan(number)
        for positions, (images, labels) in zip(plan, self._images.epoch(number), strict=True):
            local = positions[share(len(positions), self._group.rank, self._group.size)]
            yield images, labels, self._targets[self._on_device(local)]

    def _on_device(self, positions: np.ndarray) -> Tensor:
        rows = torch.from_numpy(positions)
        if self._targets.device.type != "cuda":
            return rows
        return rows.pin_memory().to(self._targets.device, non_blocking=True)  # waits for no kernel


TrainLoader = BatchLoader | FeatureLoader | TaughtLoader
