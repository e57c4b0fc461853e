"""Open or resume the run folder of a command, and check what can be checked before it runs."""

import logging
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from dmlray.api.run_lock import RunLock
from dmlray.atomic_files import storage_error
from dmlray.data.cache.image_cache import images_folder
from dmlray.data.dataset import Dataset
from dmlray.errors import Call, ConfigError, Interrupted, StorageError, UnfinishedRunError
from dmlray.learn.class_split import listed_once, with_folds
from dmlray.learn.environment import record_environment
from dmlray.learn.preflight import preflight
from dmlray.local_paths import path_of
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting import loggers
from dmlray.reporting.progress import Display, Shown, SilentDisplay, shown

RUNS = Path("runs")
Plan = TypeVar("Plan")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Command(Generic[Plan]):
    """A function of `dmlray.api` that trains: its name, the kind of its plan, how to read one."""

    name: str
    kind: str
    read: Callable[[Path], Plan]


@contextmanager
def open_run(
    command: Command[Plan],
    new: Callable[[], tuple[Plan, str]],
    given: Mapping[str, object],
    resume: str | Path | None,
    display: Shown,
) -> "Iterator[Run[Plan]]":
    """Open a new run folder, or the one that is resumed with its own plan.

    Args:
        command: The command that opens the run.
        new: Makes the plan of a new run, and the name of its folder below `runs`.
        given: Arguments that describe a new run, by name; none of them goes with `resume`.
            `out` is among them, the folder of a new run.
        resume: Run folder to go on with; None opens a new one.
        display: Where progress is shown.

    Raises:
        ConfigError: If the plan or the folder cannot be used, or there is no such run to resume.
        StorageError: If the disk is full or the folder moved away while it was written.
    """
    if resume is None:
        plan, name = new()
        folder = RunFolder(path_of("out", given["out"] or RUNS / name))
    else:
        folder = _resumed(RunFolder(path_of("resume", resume)), command.kind, given)
        plan = command.read(folder.plan(command.kind))
    call = Call(command.name, {"resume": str(folder)})
    with shown(display) as entered, claim(folder, call, resumed=resume is not None) as run:
        yield Run(run.folder, run.lock, plan, entered, command.kind)


def _resumed(folder: RunFolder, kind: str, given: Mapping[str, object]) -> RunFolder:
    names = [f"`{name}`" for name, value in given.items() if _is_given(value)]
    if names:
        refused = f"it takes no {' and no '.join(names)}"
        raise ConfigError("`resume`", [f"goes on with the plan in {folder}; {refused}"])
    if folder.kind() != kind:
        what = kind.replace("_", " ")
        raise ConfigError(str(folder), [f"is no {what}: it holds {folder.kind()}.yaml"])
    return folder


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value not in ((), [], {})


def resume_or_start(path: Path, **new: Any) -> dict[str, Any]:
    """Options of a stage: resume what was begun, else begin with the options `new`."""
    return {"resume": path} if RunFolder(path).is_started() else {"out": path, **new}


def run_name(source: Any, plan: Experiment) -> str:
    """Name a run after the file of its plan, or after the method and data set of one without."""
    if not isinstance(source, str | Path):
        return f"{plan.method.name}_{plan.data.name}"
    file = Path(source)
    return f"{file.parent.name}_best" if file.stem == "best" else file.stem


def prepare(plan: Experiment, display: Display, folds: bool = False) -> tuple[Experiment, Dataset]:
    """Check the plan and fill the image cache, in the driver, before anything runs.

    The plan comes back with its number of folds, which depends on the data set where it is open.
    """

    def announce(size: int) -> None:
        display.log(f"decoded images will take {size / 1e6:,.1f} MB in {images_folder()}")

    loggers.check(plan.loggers)
    dataset = preflight(plan, folds, display.count("decoding images"), announce)
    return with_folds(plan, dataset), dataset


@dataclass(frozen=True)
class Run(Generic[Plan]):
    """A run folder that this process alone writes: from `start` on or, when resumed, at once."""

    folder: RunFolder
    lock: RunLock
    plan: Plan
    display: Display
    kind: str = ""  # of the plan, where there is one

    @property
    def plan_file(self) -> Path:
        """Where the plan lies."""
        return self.folder.plan(self.kind)

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
            seed: Seed of the run, for the record of its environment.

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

    def failure(self, error: BaseException, resume: Call) -> BaseException:
        """What to raise for `error`; `resume` is named once there is something to go on with."""
        try:
            self.lock.check()
        except StorageError as gone:
            self.folder.remove_if_empty()
            return gone
        failure = storage_error(error) or error
        if isinstance(failure, KeyboardInterrupt):
            failure = Interrupted(signal.SIGINT)
        if self.lock.held and isinstance(failure, Interrupted | UnfinishedRunError):
            failure.resume = resume
        return failure


@contextmanager
def claim(folder: RunFolder, resume: Call, *, resumed: bool) -> Iterator[Run[None]]:
    """Check a run's folder before anything slow, and lock it: a new one in `Run.start`.

    Args:
        folder: Of the run, which need not exist yet.
        resume: Goes on with the run; that of the outermost one is shown.
        resumed: Whether the run has begun, so that its folder is locked at once.

    Raises:
        ConfigError: If the folder cannot be used, or another process writes it.
        StorageError: If the disk is full or the folder moved away while it was written.
    """
    opened = RunFolder(folder.path, root=folder.path)
    run = Run(opened, RunLock(opened), None, SilentDisplay())
    try:
        if resumed:
            folder.check_writable()
            run.lock.take()
        else:
            folder.check_new()
        with listed_once():
            yield run
        run.lock.check()
    except BaseException as error:
        failure = run.failure(error, resume)
        if failure is error:
            raise
        raise failure from error
    finally:
        run.lock.release()
