"""The ends of one seam: what becomes of an epoch that a job reports."""

from ray import train

from dmlray.learn.loop import Epoch
from dmlray.plans.folder import RunFolder
from dmlray.reporting.tensorboard import TensorBoard


class ToTensorBoard:
    """Write each epoch into the run folder's event file."""

    def __init__(self, folder: RunFolder) -> None:
        self._board = TensorBoard(folder.path)

    def __call__(self, epoch: Epoch) -> None:
        self._board.epoch(epoch.number, epoch.metrics)


def to_train(epoch: Epoch) -> None:
    """Tell Ray Train; every worker of a group must call it."""
    train.report({"epoch": epoch.number, **epoch.metrics})
