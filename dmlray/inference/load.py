"""Load what was trained, from a run or from a model folder."""

from pathlib import Path

import torch

from dmlray.errors import ConfigError
from dmlray.inference.from_run import load_run
from dmlray.inference.model import Model
from dmlray.inference.model_files import is_model, read_model
from dmlray.local_paths import path_of
from dmlray.plans.run_folder import RunFolder


def load_model(path: str | Path) -> Model:
    """The model in a folder: of a finished training, ensemble or merge, or an exported one.

    Raises:
        DmlrayError: If there is none, it is not finished, or one of its files is damaged.
    """
    folder = path_of("model", path)
    if not folder.is_dir():
        raise ConfigError(str(path), ["no such folder. Allowed: a finished run or a model"])
    with torch.random.fork_rng(devices=[]):  # building draws; what the caller draws stays the same
        if is_model(folder):
            return read_model(folder)
        _check_run(folder)
        return load_run(folder)


def _check_run(folder: Path) -> None:
    try:
        RunFolder(folder).kind()
    except ConfigError:
        problem = "is neither a run nor a model. Allowed: a finished run, or what export wrote"
        raise ConfigError(str(folder), [problem]) from None
