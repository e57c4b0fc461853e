"""TensorBoard: one event file per run folder, rewritten from the first step when resumed."""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from dmlray.plans.run_folder import RunFolder
from dmlray.printable import printable


class RunLogger:
    """Writes events into the run folder. TensorBoard would rename metrics that hold an "@".

    Not tensorboardX's SummaryWriter, which hands events to a thread: what is logged here is in the
    file when the call returns, and a process that is killed loses none of it.
    """

    def __init__(self, folder: RunFolder) -> None:
        for old in folder.path.glob("events.out.tfevents.*"):
            old.unlink()  # a resumed run logs all its steps again
        self._writer = EventsWriter(str(folder.path / "events"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write all values at `step`."""
        self._write([summary.scalar(name, value) for name, value in values.items()], step)

    def image(self, name: str, image: np.ndarray) -> None:
        """Write a picture, uint8 (height, width, 3)."""
        self._write([summary.image(name, image, dataformats="HWC")])

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Fill this run's row of the HParams table, which shows the last of each of `metrics`."""
        settings = {
            key: value if isinstance(value, int | float) else printable(str(value))
            for key, value in values.items()
        }  # its files are UTF-8, which names need not be
        self._write(summary.hparams(settings, dict(metrics)))

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()

    def _write(self, summaries: Iterable[Any], step: int = 0) -> None:
        for each in summaries:
            self._writer.write_event(Event(summary=each, step=step, wall_time=time.time()))
        self._writer.flush()
