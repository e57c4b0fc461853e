"""How a command begins: its file, its folder, what can be known to be wrong, and how to go on."""

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dmlray import methods
from dmlray.api.run_lock import RunLock
from dmlray.atomic_files import storage_error
from dmlray.data.cache.image_cache import images_folder
from dmlray.data.dataset import Dataset
from dmlray.errors import ConfigError, Interrupted, StorageError
from dmlray.learn.class_split import with_folds
from dmlray.learn.environment import record_environment
from dmlray.learn.preflight import preflight
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting import loggers
from dmlray.reporting.progress import Display

RUNS = Path("runs")
_logger = logging.getLogger(__name__)


def require_file(file: Path | None) -> Path:
    if file is None:
        raise ConfigError("command line", ["names no file. Allowed: a YAML file, or --resume RUN"])
    return file


def open_resumed(run: Path, kind: str, beside: Mapping[str, object]) -> RunFolder:
    """The folder of a run of this kind, which goes on with its own plan.

    Args:
        beside: What the command takes for a new run, by its name; none of it may be given.

    Raises:
        ConfigError: If there is no such run, or something is given beside it.
    """
    folder = RunFolder(run)
    given = [
        name
        for name, value in beside.items()
        if value is not None and value is not False and value not in ((), [])
    ]
    if given:
        refused = f"it takes no {' and no '.join(given)}"
        raise ConfigError("--resume", [f"goes on with the plan in {run}; {refused}"])
    if folder.kind() != kind:
        what = kind.replace("_", " ")
        raise ConfigError(str(run), [f"is no {what}: it holds {folder.kind()}.yaml"])
    return folder


def resume_or_start(path: Path, **new: Any) -> dict[str, Any]:
    """Options of a stage: resume what was begun, else begin with the options `new`."""
    return {"resume": path} if RunFolder(path).is_started() else {"out": path, **new}


def run_name(file: Path) -> str:
    return f"{file.parent.name}_best" if file.stem == "best" else file.stem


def experiment_of(method: str | None, display: Display) -> Path:
    if method is None:
        raise ConfigError("command line", ["names no --method and no --experiment"])
    if method not in methods.names():
        raise ConfigError(
            "--method", [f"unknown method {method!r}.{nearest_or_all(method, methods.names())}"]
        )
    file = Path("experiments") / f"{method}_demo.yaml"
    display.log(f"no --experiment given: taking {file}")
    return file


def prepare(plan: Experiment, display: Display, folds: bool = False) -> tuple[Experiment, Dataset]:
    """Check the plan and fill the image cache, in the driver, before anything runs.

    The plan comes back with its number of folds, which depends on the data set where it is open.
    """

    def announce(size: int) -> None:
        display.log(f"decoded images will take {size / 1e6:,.1f} MB in {images_folder()}")

    loggers.check(plan.loggers)
    dataset = preflight(plan, folds, display.count("decoding images"), announce)
    return with_folds(plan, dataset), dataset


class Run:
    """A run folder that this process alone writes: from `begin` on or, when resumed, at once."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = RunFolder(folder.path, root=folder.path)
        self.lock = RunLock(self.folder)

    def start(
        self,
        write_plan: Callable[[], None] = lambda: None,
        dataset: Dataset | None = None,
        seed: int = 0,
    ) -> None:
        """Claim a new folder, once nothing can keep the run from beginning.

        Args:
            write_plan: Writes the plan into a new folder.
            dataset: What a resumed run must have begun with; None if the plan itself names it.

        Raises:
            DataError: If the images have changed.
            ConfigError: If another process has claimed the folder meanwhile.
        """
        if not self.lock.held:
            self._claim(write_plan, dataset, seed)
        elif dataset:
            if not self.folder.environment.exists():
                problem = "without environment.json its images cannot be compared with those now"
                _logger.warning("%s: %s", self.folder, problem)
            record_environment(self.folder, seed, dataset)

    def _claim(self, write_plan: Callable[[], None], dataset: Dataset | None, seed: int) -> None:
        """Make the folder, its lock and its plan; leave nothing behind if one fails."""
        path = self.folder.path
        made = [folder for folder in (path, *path.parents) if not folder.exists()]
        try:
            path.mkdir(parents=not self.lock.nested, exist_ok=True)
            self.lock.take()
            self.folder.check_new()
            try:
                write_plan()
                if dataset:
                    record_environment(self.folder, seed, dataset)
            except BaseException:
                for file in {*path.iterdir()} - {self.folder.lock}:
                    file.unlink()
                raise
        except BaseException:
            self.lock.release()
            with suppress(OSError):  # another process may have begun there
                for folder in made:
                    folder.rmdir()
            raise

    def failure(self, error: BaseException, resume: str) -> BaseException:
        """What to raise for `error`; says how to go on once there is something to go on with."""
        try:
            self.lock.check()
        except StorageError as gone:
            self.folder.remove_if_empty()
            return gone
        failure = storage_error(error) or error
        if isinstance(failure, KeyboardInterrupt):
            failure = Interrupted(signal.SIGINT)
        if self.lock.held and isinstance(failure, Interrupted | StorageError):
            failure.resume = resume
        return failure


@contextmanager
def open_run(folder: RunFolder, command: str, *, resumed: bool) -> Iterator[Run]:
    """Check a run's folder before anything slow, and lock it: at once if it is `resumed`, else in
    `Run.begin`.

    Args:
        command: Goes on with the run, when the folder follows; the outermost one is shown.

    Raises:
        ConfigError: If the folder cannot be used, or another process writes it.
        StorageError: If the disk is full or the folder moved away while it was written.
    """
    run = Run(folder)
    try:
        if resumed:
            folder.check_writable()
            run.lock.take()
        else:
            folder.check_new()
        yield run
        run.lock.check()
    except BaseException as error:
        failure = run.failure(error, f"{command} {folder.typed}")
        if failure is error:
            raise
        raise failure from error
    finally:
        run.lock.release()
