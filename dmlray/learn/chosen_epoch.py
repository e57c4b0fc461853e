"""The checkpoint of a finished run that was scored."""

from pathlib import Path

from torch import Tensor

from dmlray.errors import DataError
from dmlray.learn import checkpoint
from dmlray.learn.state import TrainProgress
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder


def chosen_weights(plan: Experiment, folder: RunFolder) -> dict[str, Tensor]:
    """The learner's tensors at the epoch that the selection rule chose; needs no images.

    Raises:
        DataError: If the run is not finished, or a checkpoint is damaged or of another training.
    """
    tensors, progress = checkpoint.read_learner(chosen_checkpoint(plan, folder), plan.seed)
    check_chosen(plan, folder, progress)
    return tensors


def chosen_checkpoint(plan: Experiment, folder: RunFolder) -> Path:
    """The file of the epoch that the selection rule chose, once all epochs are done."""
    return folder.last_checkpoint if _is_last(plan) else folder.best_checkpoint


def check_chosen(plan: Experiment, folder: RunFolder, chosen: TrainProgress) -> None:
    """Check that a checkpoint of `chosen_checkpoint` is of the epoch that was scored.

    Raises:
        DataError: If it is of another one, or the run is not finished.
    """
    if _is_last(plan):
        _check_over(plan, folder, chosen)
    else:
        _check_best(plan, folder, chosen)


def _is_last(plan: Experiment) -> bool:
    return plan.protocol.selection == "last" or not plan.trains


def _check_best(plan: Experiment, folder: RunFolder, best: TrainProgress) -> None:
    if not folder.last_checkpoint.exists():
        return  # deleted to save space; no longer needed
    last = checkpoint.read_progress(folder.last_checkpoint)
    _check_over(plan, folder, last)
    if best.epoch != last.best_epoch:
        problem = f"is of epoch {best.epoch}, the best one was {last.best_epoch}"
        remedy = f"delete {folder.last_checkpoint.parent} and resume the run to train it again"
        raise DataError(f"{folder.best_checkpoint}: {problem}; {remedy}")


def _check_over(plan: Experiment, folder: RunFolder, last: TrainProgress) -> None:
    if last.epoch != plan.budget.epochs:
        problem = f"is of epoch {last.epoch}, its plan has {plan.budget.epochs}"
        raise DataError(f"{folder.last_checkpoint}: {problem}; resume the run to finish it")
