"""Checks of embeddings, labels and K; one sentence per error."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.task import RetrievalTask


def as_float(embeddings: Tensor) -> Tensor:
    """Float64 stays, all else becomes float32."""
    embeddings = embeddings.detach()
    return embeddings if embeddings.dtype == torch.float64 else embeddings.float()


def check_shapes(where: str, embeddings: Tensor, labels: Tensor) -> None:
    """Demand embeddings (N, D) and labels (N,), N > 0."""
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1] or not len(labels):
        raise DataError(
            f"{where}: embeddings of shape {tuple(embeddings.shape)} and labels of shape "
            f"{tuple(labels.shape)} do not fit. Allowed: (N, D) and (N,) with N of at least 1"
        )


def check_finite(where: str, embeddings: Tensor) -> None:
    """Demand that no embedding is NaN or infinite."""
    if embeddings.sum().isfinite():  # one pass; it may overflow, but never hide a NaN
        return
    broken = int((~embeddings.isfinite().all(1)).sum())
    if broken:
        raise DataError(
            f"{where}: {broken} embeddings hold NaN or infinity. Allowed: finite numbers"
        )


def check_counted(where: str, task: RetrievalTask, counted: int) -> None:
    """Demand that a query counts: its class has another image in the gallery."""
    if counted:
        return
    if task.queries is None and task.gallery is None and task.groups is None:
        problem = f"each of the {len(task.labels)} images is alone in its class"
        allowed = "at least one class with two images"
    else:
        problem = f"none of the {task.query_count} queries has an image of its class in the gallery"
        allowed = "at least one query with a match that counts"
    raise DataError(f"{where}: {problem}, so there is nothing to retrieve. Allowed: {allowed}")


def check_depths(where: str, depths: Sequence[int], most: int) -> None:
    """Demand K in [1, most] of each number of neighbours."""
    wrong = [k for k in depths if not 1 <= k <= most]
    if wrong:
        listed = ", ".join(map(str, wrong))
        raise ConfigError(
            where, [f"{listed} is not allowed. Allowed: 1 to {most}, the number of other images"]
        )
