"""Everything that a learner needs to go on or to be used: saved atomically, tensors only."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from dmlray.errors import DataError
from dmlray.storage import whole_file


@dataclass
class Progress:
    """How far a learner has come. `best` is the best validation score, a fraction."""

    epoch: int = 0
    best: float = -1.0
    best_epoch: int = 0


def save(path: Path, learner: nn.Module, optimizer: Optimizer | None, progress: Progress) -> None:
    """Write the learner, and the optimizer where training may go on."""
    content: dict[str, Any] = {"learner": learner.state_dict(), "progress": vars(progress)}
    if optimizer is not None:
        content["optimizer"] = optimizer.state_dict()
    packed = BytesIO()  # torch's own writer does not say when the disk is full
    torch.save(content, packed)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def load(
    path: Path, learner: nn.Module, optimizer: Optimizer | None, device: torch.device
) -> Progress:
    """Fill the learner (and optimizer) from `path`.

    Raises:
        DataError: If the file is missing, damaged or of another model.
    """
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        state = content["learner"]
        progress = Progress(**content["progress"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such checkpoint; the run has not finished an epoch") from None
    except Exception as error:
        raise DataError(f"{path}: is not a checkpoint of dmlray or is damaged ({error})") from None
    problem = _difference(learner.state_dict(), state)
    if problem:
        raise DataError(f"{path}: is a checkpoint of another model: {problem}")
    learner.load_state_dict(state)
    if optimizer is not None:
        optimizer.load_state_dict(content["optimizer"])
    return progress


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """The first key that only one side has, or whose shape differs."""
    for key in sorted(ours.keys() ^ theirs.keys()):
        return f"{key} is only in the {'experiment' if key in ours else 'checkpoint'}"
    for key, tensor in ours.items():
        if tensor.shape != theirs[key].shape:
            return f"{key} is {tuple(theirs[key].shape)}, expected {tuple(tensor.shape)}"
    return None
