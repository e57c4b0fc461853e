"""Everything that a learner needs to go on or to be used: saved atomically, tensors only."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
from torch import nn
from torch.optim.optimizer import Optimizer

from dmlray.errors import DamagedCheckpoint, DataError
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
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def load(path: Path, learner: nn.Module, optimizer: Optimizer | None) -> Progress:
    """Fill the learner (and optimizer) from `path`, wherever they are.

    Raises:
        DamagedCheckpoint: If the file is missing or damaged.
        DataError: If it is of another model.
    """
    content = _read(path)
    state, progress = content["learner"], Progress(**content["progress"])
    problem = _difference(learner.state_dict(), state)
    if problem:
        raise DataError(f"{path}: is a checkpoint of another model: {problem}")
    learner.load_state_dict(state)
    if optimizer is not None:
        optimizer.load_state_dict(content["optimizer"])
    return progress


def _read(path: Path) -> dict[str, Any]:
    """What `save` wrote, on the CPU: only damage fails here, no lack of a device's memory."""
    try:
        packed = path.read_bytes()
    except FileNotFoundError:
        problem = "no such checkpoint; the run has not finished an epoch"
        raise DamagedCheckpoint(f"{path}: {problem}") from None
    except OSError as error:  # it may be readable tomorrow
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        torn = ZipFile(BytesIO(packed)).testzip()  # torch itself looks at no checksum
        if torn:
            raise ValueError(f"{torn} does not have its checksum")
        content: dict[str, Any] = torch.load(BytesIO(packed), map_location="cpu", weights_only=True)
        if not {"learner", "progress"} <= content.keys():
            raise ValueError("it holds something else")
    except Exception as error:
        mend = f"delete {path.parent} and --resume the run to train it again from its start"
        problem = f"is not a checkpoint of dmlray or is damaged ({error}); {mend}"
        raise DamagedCheckpoint(f"{path}: {problem}") from None
    return content


def _difference(ours: dict[str, Any], theirs: dict[str, Any]) -> str | None:
    """The first key that only one side has, or whose shape differs."""
    for key in sorted(ours.keys() ^ theirs.keys()):
        return f"{key} is only in the {'experiment' if key in ours else 'checkpoint'}"
    for key, tensor in ours.items():
        if tensor.shape != theirs[key].shape:
            return f"{key} is {tuple(theirs[key].shape)}, expected {tuple(tensor.shape)}"
    return None
