"""Checkpoint files: written atomically, read without running code, checked before use."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from dmlray.atomic_files import whole_file
from dmlray.errors import DamagedCheckpointError, DataError
from dmlray.file_reading import read_bytes, reason
from dmlray.json_schema import checked
from dmlray.learn.optimizer_state import load_state, state_problem
from dmlray.learn.process_group import SINGLE_PROCESS, ProcessGroup
from dmlray.learn.state import TrainProgress, TrainState
from dmlray.tensor_files import parse_tensors, unusable

_PROGRESS = TypeAdapter(TrainProgress)


@dataclass(frozen=True)
class _Content:
    learner: dict[str, Tensor]
    progress: TrainProgress
    optimizer: Any
    training: str


def write(path: Path, content: dict[str, Any]) -> None:
    """Write the content of a `TrainState` atomically."""
    packed = BytesIO()  # torch's writer does not report a full disk
    torch.save(content, packed)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def save(path: Path, state: TrainState[Any]) -> None:
    """Write a checkpoint synchronously."""
    write(path, state.state_dict())


def load(path: Path, state: TrainState[Any], group: ProcessGroup = SINGLE_PROCESS) -> TrainProgress:
    """Load `path` into `state`, on whatever device its tensors are; all of it or nothing.

    The main process of `group` reads the file and broadcasts it.

    Raises:
        DamagedCheckpointError: If the file is missing or damaged.
        DataError: If it belongs to another model or training, or its weights are not finite.
    """
    learner, optimizer, training = state.learner, state.optimizer, state.identity
    content = _read(path, group)
    if training and content.training not in ("", training):  # older checkpoints have none
        other = f"{content.training}, not {training}"
        raise DataError(f"{path}: is a checkpoint of another training: {other}")
    if difference := _difference(learner.state_dict(), content.learner):
        raise DataError(f"{path}: is a checkpoint of another model: {difference}")
    _check_finite(path, content.learner)
    if optimizer is not None:
        moved = content.progress.loss_scale >= TrainProgress.loss_scale
        if problem := state_problem(optimizer, content.optimizer, moved):
            raise _damaged(path, problem)
        load_state(optimizer, content.optimizer)
    learner.load_state_dict(content.learner)
    state.set_progress(content.progress)
    return content.progress


def read_progress(path: Path) -> TrainProgress:
    """Read the progress of the training that wrote the checkpoint `path`.

    Raises:
        DamagedCheckpointError: If the file is missing or damaged.
    """
    return _read(path).progress


def read_learner(path: Path, seed: int) -> tuple[dict[str, Tensor], TrainProgress]:
    """Read the tensors of a learner trained with `seed`, and how far it has come.

    Raises:
        DamagedCheckpoint: If the file is missing or damaged.
        DataError: If it is of another training, or its weights are not finite.
    """
    content = _read(path)
    if content.training and not content.training.startswith(f"seed {seed},"):
        raise DataError(f"{path}: is of another training: {content.training}, not seed {seed}")
    _check_finite(path, content.learner)
    return content.learner, content.progress


def _read(path: Path, group: ProcessGroup = SINGLE_PROCESS) -> _Content:
    """Read a checkpoint to the CPU, so that only damage fails here, not lack of GPU memory."""
    packed = group.broadcast_bytes(lambda: _packed(path))
    try:
        return _content(parse_tensors(path, packed))
    except ValueError as error:
        raise _damaged(path, str(error)) from None


def _packed(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except FileNotFoundError:
        problem = "no such checkpoint: the run has not finished an epoch, or it was deleted"
        raise DamagedCheckpointError(f"{path}: {problem}; {_remedy(path)}") from None
    except OSError as error:  # it may become readable again
        remedy = f"Make it readable, or {_remedy(path)}"
        raise DataError(f"{path}: {reason(error)}. {remedy}") from None


def _damaged(path: Path, why: str) -> DamagedCheckpointError:
    problem = f"is not a checkpoint of dmlray or is damaged ({why})"
    return DamagedCheckpointError(f"{path}: {problem}; {_remedy(path)}")


def _remedy(path: Path) -> str:
    return f"delete {path.parent} and resume the run to train it again from its start"


def _content(content: object) -> _Content:
    """Check the types of the parts of a checkpoint.

    Raises:
        ValueError: If a part is missing or has another type.
    """
    if not isinstance(content, dict) or not {"learner", "progress"} <= content.keys():
        raise ValueError("it holds other content")
    learner, training = content["learner"], content.get("training", "")
    if not isinstance(learner, Mapping) or not all(isinstance(key, str) for key in learner):
        raise ValueError("learner: is not a mapping of names to tensors")
    for name, value in learner.items():
        if problem := unusable(value):
            raise ValueError(f"learner: {name} {problem}")
    if not isinstance(content["progress"], dict) or not isinstance(training, str):
        raise ValueError("progress or training: has another type")
    unknown = content["progress"].keys() - vars(TrainProgress()).keys()
    if unknown:
        raise ValueError(f"progress: unknown key {sorted(map(str, unknown))[0]}")
    progress = checked(_PROGRESS, content["progress"])
    if progress.best_epoch > progress.epoch:
        raise ValueError(f"progress: best_epoch {progress.best_epoch} of {progress.epoch} epochs")
    return _Content(dict(learner), progress, content.get("optimizer"), training)


def _difference(expected: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> str | None:
    """Describe the first key that is only in one of both, or differs in shape or dtype."""
    for key in sorted(expected.keys() ^ loaded.keys()):
        return f"{key} is only in the {'experiment' if key in expected else 'checkpoint'}"
    for key, tensor in expected.items():
        if tensor.shape != loaded[key].shape:
            return f"{key} is {tuple(loaded[key].shape)}, expected {tuple(tensor.shape)}"
        if tensor.dtype != loaded[key].dtype:
            return f"{key} is {loaded[key].dtype}, expected {tensor.dtype}"
    return None


def _check_finite(path: Path, learner: Mapping[str, Tensor]) -> None:
    for name, tensor in learner.items():
        if not tensor.isfinite().all():
            why = f"{name} holds NaN or infinity: the training diverged or the file was changed"
            remedy = (
                f"Try a smaller optimizer.lr in a new run, or delete {path.parent} and resume it"
            )
            raise DataError(f"{path}: {why}. {remedy}")
