"""Storage of a search in study.db, which Optuna and its dashboard can read.

The file is created atomically with its study and plan. It is opened by its path, not by a URL,
because its name may have any character.

Suggestions are drawn in memory, because Optuna needs about ten transactions per trial in a file.
Here there is one when a trial starts, which Tune waits for, then one per epoch and one at the end,
in the background. A trial whose end is lost in a crash reports it again from its metrics log.
"""

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection, create_study
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from dmlray.atomic_files import whole_file
from dmlray.errors import DiskFullError, StorageError

NAME = "dmlray"
PLAN = "plan"  # attribute of the study: identity of the plan
REASON = "reason"  # attribute of a trial: why it failed
POINT = "point"  # attribute of a trial: a copy of its values
SAME_AS = "same_as"  # attribute of a trial: number of an earlier trial with its point
IMPORTED = "imported"  # attribute of a trial: what trained it, and its folds, of `start_from`
START = "start"  # attribute of the study: points that are trained before others
PATIENCE = 5.0  # seconds to wait for another process's lock of the file


class End(NamedTuple):
    """How a trial ended: with values, those of its last epoch if stopped; a reason if it failed."""

    state: TrialState
    values: list[float] | None = None
    reason: str | None = None


def storage(path: Path, new: bool = False, checking: bool = False) -> RDBStorage:
    """Open Optuna's storage in the file `path`; create its tables if it is `new`.

    If `checking`, SQLite rolls back transactions of killed processes, and writes nothing else.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=PATIENCE, check_same_thread=False)
        if checking:
            connection.execute("PRAGMA query_only = ON")
        return connection

    named = "sqlite:///study.db"  # only names the type of database
    return RDBStorage(named, {"creator": connect}, skip_table_creation=not new)


def create(
    path: Path,
    modes: list[str],
    plan: dict[str, str],
    trials: Sequence[FrozenTrial] = (),
    start: Sequence[dict[str, Any]] = (),
) -> None:
    """Create a study atomically.

    Args:
        path: File of the study.
        modes: `max` or `min` for each metric.
        plan: Identity of the plan.
        trials: Finished trials of another search.
        start: Points that are trained before others.

    Raises:
        StorageError: If SQLite cannot write it.
    """
    with whole_file(path) as temporary, _explained(path):
        created = storage(temporary, new=True)
        study = create_study(storage=created, study_name=NAME, directions=directions(modes))
        study.set_user_attr(PLAN, plan)
        study.set_user_attr(START, list(start))
        study.add_trials(trials)
        created.remove_session()
        created.engine.dispose()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        raise refused(path, error) from error


def refused(path: Path, error: Exception) -> StorageError:
    """Convert an error of SQLite to a StorageError."""
    reason = str(error.__cause__ or error).split("\n")[0]
    if "disk is full" in reason:
        return DiskFullError(f"{path}: the disk is full: free some space")
    return StorageError(f"{path}: cannot be written or read ({reason})")


def directions(modes: list[str]) -> list[StudyDirection]:
    """Convert `min` and `max` to Optuna's directions."""
    return [StudyDirection.MINIMIZE if m == "min" else StudyDirection.MAXIMIZE for m in modes]


class StudyStorage:
    """A study in a file, whose trials have the same numbers as in memory.

    Every method may raise Optuna's StorageInternalError, also for earlier background writes.
    """

    def __init__(self, path: Path) -> None:
        self._storage = storage(path)
        self._study_id = self._storage.get_study_id_from_name(NAME)
        self._ids = {trial.number: trial._trial_id for trial in self.trials()}
        self._writer, self._lock = ThreadPoolExecutor(1, "study"), Lock()
        self._pending: deque[Future[None]] = deque()

    def trials(self) -> list[FrozenTrial]:
        """Return all trials, in order."""
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    def start_points(self) -> list[dict[str, Any]]:
        """Return the points that are trained before others, also those that were trained."""
        points: list[dict[str, Any]] = self._storage.get_study_user_attrs(self._study_id).get(
            START, []
        )
        return points

    def add_trial(self, trial: FrozenTrial) -> None:
        """Write a trial with its suggested values, before pending writes; nothing if it exists."""
        if trial.number not in self._ids:
            with self._lock:
                row = self._storage.create_new_trial(self._study_id, trial)
            self._ids[trial.number] = row

    def report(self, number: int, epoch: int, value: float) -> None:
        """Write the value of a trial after an epoch, in the background."""
        row = self._ids[number]
        self.submit(self._storage.set_trial_intermediate_value, row, epoch, value)

    def end(self, number: int, end: End) -> None:
        """Write a trial's final state, and why it failed, in the background."""
        row = self._ids[number]
        if end.reason is not None:
            self.submit(self._storage.set_trial_user_attr, row, REASON, end.reason)
        self.submit(self._storage.set_trial_state_values, row, end.state, end.values)

    def repeat(self, trial: FrozenTrial) -> None:
        """Write a trial that ended like an earlier one; complete it if the file has it."""
        if trial.number not in self._ids:
            self.add_trial(trial)
            return
        for epoch, value in trial.intermediate_values.items():
            self.report(trial.number, epoch, value)
        end = End(trial.state, trial.values, trial.user_attrs.get(REASON))
        self.end(trial.number, end)

    def submit(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Run `work` in the background, after all earlier writes."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._writer.submit(self._locked, work, *arguments))

    def flush(self) -> None:
        """Wait until all writes are done."""
        while self._pending:
            self._pending.popleft().result()

    def _locked(self, work: Callable[..., Any], *arguments: Any) -> None:
        with self._lock:
            work(*arguments)
