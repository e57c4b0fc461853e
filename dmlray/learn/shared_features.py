"""Features of pretrained trunks on disk, computed once for all trainings of a run.

Who starts several trainings opens `sharing_features` around them. Their processes find the folder
above their own; without one, each computes its own features.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from dmlray.atomic_files import write_array
from dmlray.data import folds
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset
from dmlray.learn.frozen_features import trunk_digest
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder

_NAME = ".features"
_LEVELS = 8  # benchmark, cells, data set, method, search, trials, a trial, its fold


@contextmanager
def sharing_features(folder: RunFolder) -> Iterator[None]:
    """Let the trainings in the run `folder` share features; the files go with the block.

    A run inside of one that shares takes part in it. What a killed session left is used, and
    removed.
    """
    if _shared_above(folder.path.parent):
        yield
        return
    shared = folder.path / _NAME
    shared.mkdir(exist_ok=True)
    try:
        yield
    finally:
        shutil.rmtree(shared, ignore_errors=True)


def shared_features(
    plan: Experiment,
    folder: RunFolder,
    dataset: Dataset,
    subset: Subset,
    trunk: nn.Module,
    device: torch.device,
    compute: Callable[[Subset], Tensor],
) -> Tensor:
    """Return features (N, F) of `subset`, read where another training has computed them.

    The file holds all training images, of which the subsets of folds are rows.

    Args:
        plan: Experiment whose trunk is meant, as it is before any training.
        folder: Of the training.
        dataset: Images.
        subset: Images wanted.
        trunk: What `compute` runs.
        device: On which the features are computed and returned.
        compute: Runs the trunk on a subset.
    """
    shared = _shared_above(folder.path)
    if shared is None:
        return compute(subset)
    train = folds.train_subset(dataset)
    whole = train if np.isin(subset.rows, train.rows).all() else subset
    path = shared / f"{_key(plan, dataset, whole, trunk_digest(trunk), device)}.npy"
    features = _read(path, len(whole))
    if features is None:
        features = compute(whole)
        if features.dtype == torch.float32:  # what numpy has, too
            with suppress(OSError):  # a full disk is met by the run's own files
                write_array(path, features.cpu().numpy())
    return features.to(device)[torch.from_numpy(np.searchsorted(whole.rows, subset.rows))]


def _shared_above(path: Path) -> Path | None:
    around = (path, *path.parents)[:_LEVELS]
    return next((each / _NAME for each in around if (each / _NAME).is_dir()), None)


def _key(
    plan: Experiment, dataset: Dataset, subset: Subset, trunk: str, device: torch.device
) -> str:
    """A hash of all that the features depend on, which is not whether the trunk will be trained."""
    backbone = plan.backbone.model_copy(update={"frozen": False})
    parts = (
        dataset.fingerprint, folds.fingerprint(dataset, subset), backbone, plan.data.transform,
        plan.budget.precision, device.type, trunk,
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _read(path: Path, count: int) -> Tensor | None:
    """The features of `count` images; None if the file is missing or damaged."""
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return torch.from_numpy(rows) if rows.dtype == np.float32 and len(rows) == count else None
