"""What a search leaves in study.db, which Optuna and its dashboard can read.

Suggestions are drawn in memory, for Optuna makes about ten transactions of a trial in a file. Here
it is one when a trial begins, which Tune waits for, and later one an epoch and one when it ends:
a trial whose end is lost in a crash tells it again from its journal.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

from optuna.storages import RDBStorage
from optuna.study import create_study
from optuna.trial import FrozenTrial

NAME = "dmlray"
_PLAN = "plan"  # the study's own note of what it searches


class Record:
    """The study in a file; trials have the same numbers there as in memory.

    Every method may raise Optuna's StorageInternalError, also for what was told before.
    """

    def __init__(self, path: Path, modes: list[str]) -> None:
        self._storage = RDBStorage(f"sqlite:///{path}")
        study = create_study(
            storage=self._storage,
            study_name=NAME,
            directions=["minimize" if mode == "min" else "maximize" for mode in modes],
            load_if_exists=True,
        )
        self._study_id = study._study_id
        self._ids = {trial.number: trial._trial_id for trial in self.trials()}
        self._writer, self._turn = ThreadPoolExecutor(1, "study"), Lock()
        self._pending: deque[Future[None]] = deque()

    def trials(self) -> list[FrozenTrial]:
        """All trials, in order."""
        return self._storage.get_all_trials(self._study_id, deepcopy=False)

    @property
    def plan(self) -> dict[str, Any] | None:
        """What the study searches, as it was begun."""
        note: dict[str, Any] | None = self._storage.get_study_user_attrs(self._study_id).get(_PLAN)
        return note

    @plan.setter
    def plan(self, identity: dict[str, Any]) -> None:
        self._storage.set_study_user_attr(self._study_id, _PLAN, identity)

    def begin(self, trial: FrozenTrial) -> None:
        """Keep a trial with all that was suggested to it, unless it is there; others' ends wait."""
        if trial.number not in self._ids:
            with self._turn:
                row = self._storage.create_new_trial(self._study_id, trial)
            self._ids[trial.number] = row

    def report(self, number: int, epoch: int, value: float) -> None:
        """Keep what a trial reached after an epoch."""
        row = self._ids[number]
        self.afterwards(self._storage.set_trial_intermediate_value, row, epoch, value)

    def end(self, trial: FrozenTrial, reason: str | None) -> None:
        """Keep how a trial ended, and why it failed."""
        row = self._ids[trial.number]
        if reason is not None:
            self.afterwards(self._storage.set_trial_user_attr, row, "reason", reason)
        self.afterwards(self._storage.set_trial_state_values, row, trial.state, trial.values)

    def afterwards(self, work: Callable[..., Any], *arguments: Any) -> None:
        """Do `work` once all that was told before is in the file."""
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        self._pending.append(self._writer.submit(self._in_turn, work, *arguments))

    def settle(self) -> None:
        """Wait until all is in the file."""
        while self._pending:
            self._pending.popleft().result()

    def _in_turn(self, work: Callable[..., Any], *arguments: Any) -> None:
        with self._turn:
            work(*arguments)
