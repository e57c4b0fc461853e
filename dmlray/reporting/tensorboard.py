"""TensorBoard: one event file per run folder, rewritten from the first epoch when resumed."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event

from dmlray.printable import printable


class TensorBoard:
    """Scalars per epoch of one run. Metric names hold no "@": TensorBoard would rename them.

    Not tensorboardX's SummaryWriter, which hands events to a thread: what is told here is in the
    file when the call returns, and a process that is killed loses none of it.
    """

    def __init__(self, folder: Path) -> None:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()  # its epochs come again: a resumed run tells all of them
        self._writer = EventsWriter(str(folder / "events"))

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Write all metrics at step `number`."""
        self._write([summary.scalar(name, value) for name, value in metrics.items()], number)

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
        self._writer.close()

    def _write(self, summaries: Iterable[Any], step: int = 0) -> None:
        for each in summaries:
            self._writer.write_event(Event(summary=each, step=step, wall_time=time.time()))
        self._writer.flush()
