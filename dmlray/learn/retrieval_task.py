"""Images to score -> who is searched with, in what."""

import torch

from dmlray.data.folds import Subset
from dmlray.evaluation.task import RetrievalTask


def task_of(subset: Subset) -> RetrievalTask:
    """Each image of `subset` is searched for in all others."""
    return RetrievalTask(torch.as_tensor(subset.labels))
