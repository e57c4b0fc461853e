"""How a command begins: its file, its folder, what can be known to be wrong, and how to go on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dmlray import methods
from dmlray.data.cache import images_folder
from dmlray.data.dataset import Dataset
from dmlray.errors import ConfigError, Interrupted
from dmlray.learn.preflight import preflight
from dmlray.learn.training import with_folds
from dmlray.plans.experiment import Experiment
from dmlray.plans.folder import RunFolder
from dmlray.plans.problems import nearest
from dmlray.reporting.display import Display

RUNS = Path("runs")


def needed(file: Path | None) -> Path:
    if file is None:
        raise ConfigError("command line", ["names no file. Allowed: a YAML file, or --resume RUN"])
    return file


def resumed(run: Path, kind: str, overrides: Sequence[str]) -> RunFolder:
    folder = RunFolder(run)
    if overrides:
        raise ConfigError("--resume", [f"goes on with the plan in {run}; it takes no overrides"])
    if folder.kind() != kind:
        what = kind.replace("_", " ")
        raise ConfigError(str(run), [f"is no {what}: it holds {folder.kind()}.yaml"])
    return folder


def go_on(path: Path, *overrides: str) -> dict[str, Any]:
    """Options of a stage: resume what was begun, else begin with `overrides`."""
    begun = path.exists() and any(path.iterdir())
    return {"resume": path} if begun else {"out": path, "overrides": overrides}


def run_name(file: Path) -> str:
    return f"{file.parent.name}_best" if file.stem == "best" else file.stem


def experiment_of(method: str | None, display: Display) -> Path:
    if method is None:
        raise ConfigError("command line", ["names no --method and no --experiment"])
    if method not in methods.names():
        raise ConfigError(
            "--method", [f"unknown method {method!r}.{nearest(method, methods.names())}"]
        )
    file = Path("experiments") / f"{method}_demo.yaml"
    display.say(f"no --experiment given: taking {file}")
    return file


def prepare(plan: Experiment, display: Display, folds: bool = False) -> tuple[Experiment, Dataset]:
    """Check the plan and fill the image cache, in the driver, before anything runs.

    The plan comes back with its number of folds, which depends on the data set where it is open.
    """

    def announce(size: int) -> None:
        display.say(f"decoded images will take {size / 1e6:,.1f} MB in {images_folder()}")

    dataset = preflight(plan, folds, display.counting("decoding images"), announce)
    return with_folds(plan, dataset), dataset


@contextmanager
def resumable(command: str, folder: Path | RunFolder) -> Iterator[None]:
    """Tell an interruption how to go on, once there is something to go on with.

    `command` ends with its option for the folder; the outermost command is the one to type.
    """
    try:
        yield
    except Interrupted as interruption:
        if Path(str(folder)).exists():
            interruption.resume = f"{command} {RunFolder(Path(str(folder))).typed}"
        raise
