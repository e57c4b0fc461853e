"""Images to score -> who is searched with, in what."""

import numpy as np
import torch

from dmlray.data.folds import Subset
from dmlray.data.roles import Roles
from dmlray.evaluation.task import RetrievalTask


def task_of(subset: Subset) -> RetrievalTask:
    """Search with the queries of `subset` in its gallery; without roles, each image in all others.

    Raises:
        DataError: If the subset has no query, or nothing in its gallery.
    """
    return task_with(subset.labels, subset.roles)


def task_with(numbers: np.ndarray, roles: Roles | None) -> RetrievalTask:
    """As `task_of`, for images of labels (N,) with these roles."""
    labels = torch.as_tensor(numbers)
    if roles is None:
        return RetrievalTask(labels)
    groups = None if roles.groups is None else torch.as_tensor(roles.groups)
    return RetrievalTask(labels, _chosen(roles.queries), _chosen(roles.gallery), groups)


def _chosen(mask: np.ndarray) -> torch.Tensor | None:
    """Indices of a mask (N,); None for all."""
    return None if mask.all() else torch.as_tensor(np.flatnonzero(mask))
