"""Reporters of the epochs of a training: to TensorBoard, Ray Tune and Ray Train."""

from collections.abc import Iterable, Mapping
from typing import Any

from ray import train, tune

from dmlray.learn.loop import Epoch
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.tensorboard import TensorBoard


class ToTensorBoard:
    """Write each epoch into the run folder's event file."""

    def __init__(self, folder: RunFolder) -> None:
        folder.make()
        self._board = TensorBoard(folder.path)

    def __call__(self, epoch: Epoch) -> None:
        self._board.epoch(epoch.number, epoch.metrics)


class ToTune:
    """Report each epoch of a trial to Tune, after writing it to the trial's event file."""

    def __init__(
        self, folder: RunFolder, values: Mapping[str, Any], columns: Iterable[str]
    ) -> None:
        folder.make()
        self._board = TensorBoard(folder.path)
        self._values, self._columns = values, columns

    def __call__(self, epoch: Epoch) -> None:
        self._board.epoch(epoch.number, epoch.metrics)
        if epoch.number == 1:  # its row of the HParams table then shows the latest scores
            scores = {name: epoch.metrics[name] for name in self._columns if name in epoch.metrics}
            self._board.hparams(self._values, scores)
        tune.report({"epoch": epoch.number, **epoch.metrics})

    def close(self) -> None:
        self._board.close()


def to_train(epoch: Epoch) -> None:
    """Report an epoch to Ray Train; every worker of a group must call it."""
    train.report({"epoch": epoch.number, **epoch.metrics})
