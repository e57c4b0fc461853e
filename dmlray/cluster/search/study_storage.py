"""What a search leaves in study.db, which Optuna and its dashboard can read.

The file appears with its study and plan in it or not at all, and is opened by its path and not by
a URL made from it: a name may hold any character.

Suggestions are drawn in memory, for Optuna makes about ten transactions of a trial in a file. Here
it is one when a trial begins, which Tune waits for, and later one an epoch and one when it ends:
a trial whose end is lost in a crash tells it again from its journal.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection, create_study
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from dmlray.atomic_files import whole_file
from dmlray.errors import DiskFull, StorageError

NAME = "dmlray"
PLAN = "plan"  # the study's own note of what it searches
REASON = "reason"  # note of a trial: why it failed
POINT = "point"  # note of a trial: its values, once more
SAME_AS = "same_as"  # note of a trial: the number of the one that had its point before
PATIENCE = 5.0  # seconds that another process may hold the file


def storage(path: Path, new: bool = False, checking: bool = False) -> RDBStorage:
    """Optuna's storage in the file `path`: with its tables where it is `new`.

    Where `checking`, SQLite undoes what a killed process left half done, and writes nothing else.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)
        if checking:
            connection.execute("PRAGMA query_only = ON")
        return connection

    named = "sqlite:///study.db"  # only says which database it is
    return RDBStorage(named, {"creator": connect}, skip_table_creation=not new)


def create(path: Path, modes: list[str], plan: dict[str, str]) -> None:
    """Make a study without trials, whole or not at all.

    Raises:
        StorageError: If SQLite cannot write it.
    """
    with whole_file(path) as temporary, _explained(path):
        made = storage(temporary, new=True)
        study = create_study(storage=made, study_name=NAME, directions=directions(modes))
        study.set_user_attr(PLAN, plan)
        made.remove_session()
        made.engine.dispose()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise refused(path, error) from error


def refused(path: Path, error: Exception) -> StorageError:
    """The sentence for a study that SQLite can no longer write or read."""
    reason = str(error.__cause__ or error).split("\n")[0]
    if "disk is full" in reason:
        return DiskFull(f"{path}: the disk is full: make room")
    return StorageError(f"{path}: cannot be written or read ({reason})")


def directions(modes: list[str]) -> list[StudyDirection]:
    """Optuna's words for `min` and `max`."""
    return [StudyDirection.MINIMIZE if m == "min" else StudyDirection.MAXIMIZE for m in modes]


class StudyStorage:
    """A study in a file; trials have the same numbers there as in memory.

    Every method may raise Optuna's StorageInternalError, also for what was told before.
    """

    def __init__(self, path: Path) -> None:
        self._storage = storage(path)
        self._study_id = self._storage.get_study_id_from_name(NAME)
        self._ids = {trial.number: trial._trial_id for trial in self.trials()}
        self._writer, self._turn = ThreadPoolExecutor(1, "study"), Lock()
        self._pending: deque[Future[None]] = deque()

    def trials(self) -> list[FrozenTrial]:
        """All trials, in order."""
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def add_trial(self, trial: FrozenTrial) -> None:
        """Keep a trial with all that was suggested to it, unless it is there; others' ends wait."""
        if trial.number not in self._ids:
            with self._turn:
                row = self._storage.create_new_trial(self._study_id, trial)
            self._ids[trial.number] = row

    def report(self, number: int, epoch: int, value: float) -> None:
        """Keep what a trial reached after an epoch."""
        row = self._ids[number]
        self.submit(self._storage.set_trial_intermediate_value, row, epoch, value)

    def end(self, trial: FrozenTrial, reason: str | None) -> None:
        """Keep how a trial ended, and why it failed."""
        row = self._ids[trial.number]
        if reason is not None:
            self.submit(self._storage.set_trial_user_attr, row, REASON, reason)
        self.submit(self._storage.set_trial_state_values, row, trial.state, trial.values)

    def repeat(self, trial: FrozenTrial) -> None:
        """Keep a trial that ended as an earlier one did; what the file has of it stays."""
        if trial.number not in self._ids:
            self.add_trial(trial)
            return
        for epoch, value in trial.intermediate_values.items():
            self.report(trial.number, epoch, value)
        self.end(trial, trial.user_attrs.get(REASON))

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Do `work` once all that was told before is in the file."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._writer.submit(self._in_turn, work, *arguments))

    def flush(self) -> None:
        """Wait until all is in the file."""
        while self._pending:
            self._pending.popleft().result()

    def _in_turn(self, work: Callable[..., Any], *arguments: Any) -> None:
        with self._turn:
            work(*arguments)
