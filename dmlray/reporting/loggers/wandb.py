"""Weights & Biases: one run per run folder, offline unless WANDB_MODE is set."""

import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import wandb

from dmlray.atomic_files import write_text
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import printable

_SETTINGS = {"silent": True, "console": "off", "disable_git": True, "save_code": False}


class RunLogger:
    """Logs to Weights & Biases; a resumed run keeps its identifier.

    Offline, its files are written anew, for all steps are logged again; `wandb sync` sends them.
    """

    def __init__(self, folder: RunFolder) -> None:
        mode = os.environ.get("WANDB_MODE", "offline")
        if mode == "offline":
            for old in (folder.path / "wandb").glob("offline-run-*"):
                shutil.rmtree(old)
        self._run = wandb.init(
            project=printable((folder.root or folder.path).name),
            name=printable(folder.title),
            id=_identifier(folder),
            resume=None if mode == "offline" else "allow",
            dir=str(folder.path),
            mode=cast(Any, mode),
            reinit="create_new",
            settings=wandb.Settings(**_SETTINGS),
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log all values at `step`; it is written with the next step or the end."""
        self._run.log(dict(values), step=step)

    def hparams(self, values: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Log the settings as the run's config; the metrics are there already."""
        config = {
            key: printable(value) if isinstance(value, str) else value
            for key, value in values.items()
        }
        self._run.config.update(config, allow_val_change=True)

    def image(self, name: str, image: np.ndarray) -> None:
        """Log a picture, uint8 (height, width, 3), at the last step."""
        self._run.log({name: wandb.Image(image)}, step=self._run.step)

    def close(self) -> None:
        """End the run, as failed while an exception is on its way."""
        self._run.finish(exit_code=int(sys.exc_info()[0] is not None))


def _identifier(folder: RunFolder) -> str:
    """The identifier of the run, made by its first session."""
    note = folder.logger_run("wandb")
    if not note.exists():
        write_text(note, uuid.uuid4().hex)
    return note.read_text().strip()
