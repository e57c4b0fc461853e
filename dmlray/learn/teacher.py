"""Vectors of the training images by a teacher: computed once for a run, read by its trainings.

A safetensors file in the run's folder: `rows` (N, R) of all N images of the training classes, in
the data set's order; its metadata names teacher and images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from dmlray.atomic_files import whole_file
from dmlray.data.batches.loader import BatchLoader, share
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, train_subset
from dmlray.errors import DataError
from dmlray.file_reading import open_regular, reason
from dmlray.learn.frozen_features import FeatureLoader
from dmlray.learn.process_group import ProcessGroup


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
    metadata = {"images": dataset.fingerprint, "remark": remark}
    packed = save({"rows": rows.contiguous()}, metadata=metadata)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed)


def read_vectors(path: Path, dataset: Dataset) -> TeacherVectors:
    """Read what `write_vectors` wrote.

    Raises:
        DataError: If the file is missing, damaged or of other images.
    """
    mend = "resume the run to make it"
    try:
        open_regular(path).close()
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            images, remark, rows = metadata["images"], metadata["remark"], file.get_tensor("rows")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, the teacher's vectors; {mend}") from None
    except Exception as error:  # safetensors has kinds of its own
        why = reason(error) if isinstance(error, OSError | ValueError) else str(error)
        raise DataError(
            f"{path}: is damaged ({why.splitlines()[0]}); delete it and {mend} again"
        ) from None
    numbers = train_subset(dataset).rows
    usable = rows.dtype == torch.float32 and rows.dim() == 2 and len(rows) == len(numbers)
    if images != dataset.fingerprint or not usable or not rows.isfinite().all():
        problem = "holds no vectors of these training images"
        raise DataError(f"{path}: {problem}; delete it and {mend} again")
    return TeacherVectors(rows, numbers, remark)


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
