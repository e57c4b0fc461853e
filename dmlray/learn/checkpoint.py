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
from dmlray.errors import DamagedCheckpoint, DataError
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
    """Write the content of a `TrainState`, whole or not at all."""
    packed = BytesIO()  # torch's own writer does not say when the disk is full
    torch.save(content, packed)
    path.parent.mkdir(exist_ok=True)
    with whole_file(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def save(path: Path, state: TrainState[Any]) -> None:
    """Write a checkpoint and wait for it."""
    write(path, state.state_dict())


def load(path: Path, state: TrainState[Any], group: ProcessGroup = SINGLE_PROCESS) -> TrainProgress:
    """Fill `state` from `path`, wherever its tensors are; all of it or nothing.

    The main process of `group` reads the file for all.

    Raises:
        DamagedCheckpoint: If the file is missing or damaged.
        DataError: If it is of another model or training, or its weights are not finite.
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
    """Read how far the training of the checkpoint `path` has come.

    Raises:
        DamagedCheckpoint: If the file is missing or damaged.
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
    """What `save` wrote, on the CPU: only damage fails here, no lack of a device's memory."""
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
        raise DamagedCheckpoint(f"{path}: {problem}; {_mend(path)}") from None
    except OSError as error:  # it may be readable tomorrow
        mend = f"Make it readable, or {_mend(path)}"
        raise DataError(f"{path}: {reason(error)}. {mend}") from None


def _damaged(path: Path, why: str) -> DamagedCheckpoint:
    problem = f"is not a checkpoint of dmlray or is damaged ({why})"
    return DamagedCheckpoint(f"{path}: {problem}; {_mend(path)}")


def _mend(path: Path) -> str:
    return f"delete {path.parent} and resume the run to train it again from its start"


def _content(content: object) -> _Content:
    """The parts of a checkpoint, each of the kind that it has to be.

    Raises:
        ValueError: If one is missing or of another kind.
    """
    if not isinstance(content, dict) or not {"learner", "progress"} <= content.keys():
        raise ValueError("it holds something else")
    learner, training = content["learner"], content.get("training", "")
    if not isinstance(learner, Mapping) or not all(isinstance(key, str) for key in learner):
        raise ValueError("learner: is no mapping of names to tensors")
    for name, value in learner.items():
        if problem := unusable(value):
            raise ValueError(f"learner: {name} {problem}")
    if not isinstance(content["progress"], dict) or not isinstance(training, str):
        raise ValueError("progress or training: is of another kind")
    unknown = content["progress"].keys() - vars(TrainProgress()).keys()
    if unknown:
        raise ValueError(f"progress: unknown key {sorted(map(str, unknown))[0]}")
    progress = checked(_PROGRESS, content["progress"])
    if progress.best_epoch > progress.epoch:
        raise ValueError(f"progress: best_epoch {progress.best_epoch} of {progress.epoch} epochs")
    return _Content(dict(learner), progress, content.get("optimizer"), training)


def _difference(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """The first key that only one side has, or whose shape or type differs."""
    for key in sorted(ours.keys() ^ theirs.keys()):
        return f"{key} is only in the {'experiment' if key in ours else 'checkpoint'}"
    for key, tensor in ours.items():
        if tensor.shape != theirs[key].shape:
            return f"{key} is {tuple(theirs[key].shape)}, expected {tuple(tensor.shape)}"
        if tensor.dtype != theirs[key].dtype:
            return f"{key} is {theirs[key].dtype}, expected {tensor.dtype}"
    return None


def _check_finite(path: Path, learner: Mapping[str, Tensor]) -> None:
    for name, tensor in learner.items():
        if not tensor.isfinite().all():
            why = f"{name} holds NaN or infinity: the training diverged or the file was changed"
            mend = f"Try a smaller optimizer.lr in a new run, or delete {path.parent} and resume it"
            raise DataError(f"{path}: {why}. {mend}")
