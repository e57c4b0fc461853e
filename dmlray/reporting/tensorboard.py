"""TensorBoard: one event file per run folder, rewritten from the first epoch when resumed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL.Image import Image
from tensorboardX import SummaryWriter
from tensorboardX.summary import hparams as hparams_summaries


class TensorBoard:
    """Scalars per epoch of one run. Metric names hold no "@": TensorBoard would rename them."""

    def __init__(self, folder: Path) -> None:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()  # its epochs come again: a resumed run tells all of them
        self._writer = SummaryWriter(str(folder), flush_secs=5)

    def epoch(self, number: int, metrics: Mapping[str, float]) -> None:
        """Write all metrics at step `number`."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def image(self, name: str, image: Image) -> None:
        self._writer.add_image(name, np.asarray(image), dataformats="HWC")

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Fill this run's row of the HParams table; `metrics` are scalar tags written before."""
        settings = {k: v if isinstance(v, int | float | str) else str(v) for k, v in values.items()}
        for summary in hparams_summaries(settings, dict(metrics)):
            self._writer.file_writer.add_summary(summary)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
