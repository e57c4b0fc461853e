"""The memory of a search: Optuna's study in a file, and nothing else.

A resumed search reads there what is done, what was begun and what was never asked. Begun trials
keep their number, values and folder, so their folds go on from their checkpoints and nothing is
trained twice.
"""

import shutil
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from dmlray.cluster.error_messages import DIED
from dmlray.cluster.search.points import Points
from dmlray.cluster.search.samplers import ask, sampler
from dmlray.cluster.search.study_checks import read_study
from dmlray.cluster.search.study_storage import POINT, REASON, SAME_AS, StudyStorage, create
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class StudySearcher(OptunaSearch):  # type: ignore[misc]  # Ray has no types
    """OptunaSearch that resumes begun trials, marks pruned ones and knows when to end.

    No point is trained twice: a trial whose point was suggested before ends as that one did, with
    the other's number as its note.

    Raises:
        ConfigError: If the study in `folder` is damaged or was begun with another plan.
    """

    def __init__(self, plan: Search, folder: RunFolder) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")
        self._plan, self._folder, self._base = plan, folder, plan.base()
        several = len(plan.metrics) > 1
        past = read_study(plan, folder)
        if not folder.study.exists():
            create(folder.study, plan.modes, plan.identity())
        self._record = StudyStorage(folder.study)
        for row in past:
            row.system_attrs = {}  # of samplers that are gone; CMA-ES's would be unpickled
        super().__init__(
            space=self._walk,
            metric=list(plan.metrics) if several else plan.metrics[0],
            mode=plan.modes if several else "max",
            points_to_evaluate=None if past else [plan.base_point()],
            sampler=sampler(plan.settings, len(past)),
        )
        self.study.add_trials(past)  # in memory, with the same numbers
        self._points = Points(plan, plan.settings.seed + len(past))
        self._twins: dict[int, list[optuna.trial.Trial]] = {}  # that will end as a begun one does
        self._begun: list[optuna.trial.Trial] = []
        for row in self.study.get_trials(deepcopy=False):
            self._take_up(row)
        self._failures: list[str] = []  # since the last trial that ended well
        self._unfinished: str | None = None  # why begun trials are left for the next session
        budget = plan.settings.time_budget
        self._deadline = time.monotonic() + budget if budget else float("inf")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its searcher again and again; a resumed search makes a new one

    @property
    def study(self) -> optuna.Study:
        """Optuna's own, in memory."""
        assert isinstance(self._ot_study, optuna.Study)
        return self._ot_study

    @property
    def missing(self) -> int:
        """Trials still to run: a space has no more than its points, and each is run once."""
        ran = [row for row in self.finished() if SAME_AS not in row.user_attrs]
        tried = {self._plan.ranges.fingerprint(row.params) for row in ran}
        wanted = min(self._plan.settings.trials - len(ran), self._plan.size - len(tried))
        return int(max(0, wanted))

    @property
    def stopped_by(self) -> str | None:
        """Why the search ends early: a full disk, or what too many failures in a row share."""
        if self._unfinished:
            return self._unfinished
        if len(self._failures) < self._plan.settings.failures_in_a_row:
            return None
        reason, times = Counter(self._failures).most_common(1)[0]
        return f"{len(self._failures)} trials in a row failed, {times} of them so: {reason}"

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return time.monotonic() > self._deadline

    def finished(self) -> list[FrozenTrial]:
        """Trials that ended, well or not."""
        rows: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=_FINISHED)
        return rows

    def number(self, trial_id: str) -> int:
        """Optuna's number of a Tune trial: the name of its folder."""
        return int(self._ot_trials[trial_id].number)

    def is_published(self, trial_id: str) -> bool:
        """Whether it is trial 0, the experiment's own point."""
        return self.number(trial_id) == 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self.stopped_by or self.out_of_time:
            return str(Searcher.FINISHED)
        if trial_id not in self._ot_trials:
            trial = self._begun.pop(0) if self._begun else self._new()
            if trial is None:
                return str(Searcher.FINISHED)
            self._ot_trials[trial_id] = trial
        values = self._walk(self._ot_trials[trial_id])
        self._record.add_trial(self._row(self.number(trial_id)))
        return {"number": self.number(trial_id), "values": values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        result = result or {}
        self.on_trial_result(trial_id, result)  # Tune keeps a trial's last result to itself
        if "unfinished" in result:
            self._unfinished = result["unfinished"]
            return
        reason = result.get("error", DIED if error else None)
        if reason:
            self._failures.append(reason)
        else:
            self._failures.clear()
        self._end(trial_id, result, reason)
        number = self.number(trial_id)
        for twin in self._twins.pop(number, []):
            self._repeat(twin, self._row(number))
        self._completed_trials.add(trial_id)
        self._record.submit(_drop_checkpoints, self._folder.trial(number))

    def flush(self) -> None:
        """Wait until all that was told is in the file."""
        self._record.flush()

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Tune wants a file; the study itself is the memory

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        metrics = self._plan.metrics
        if len(metrics) > 1 or metrics[0] not in result:  # Optuna has no curve of several
            return
        epoch, value = result["epoch"], result[metrics[0]]
        if self._row(self.number(trial_id)).intermediate_values.get(epoch) != value:
            self._ot_trials[trial_id].report(value, epoch)
            self._record.report(self.number(trial_id), epoch, value)

    def _row(self, number: int) -> FrozenTrial:
        rows: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return rows[number]

    def _take_up(self, row: FrozenTrial) -> None:
        """Go on with a trial of an earlier session where it is not over."""
        if SAME_AS not in row.user_attrs:
            self._points.claim(row.params, row.number)
        if row.state == TrialState.RUNNING:
            trial = optuna.trial.Trial(self.study, row._trial_id)
            if SAME_AS in row.user_attrs:
                self._pair(trial, row.user_attrs[SAME_AS])
            else:
                self._begun.append(trial)

    def _new(self) -> optuna.trial.Trial | None:
        """A trial of a point that no other has; None where none is left.

        What the sampler suggests again is told to it with the value that is known, and the next
        point is drawn from those that are left.
        """
        trial = self.study.ask()
        point = self._walk(trial)
        trial.set_user_attr(POINT, point)
        first = self._points.claim(point, trial.number)
        if first == trial.number:
            return trial
        trial.set_user_attr(SAME_AS, first)
        self._pair(trial, first)
        left = self._points.left()
        if left is None:
            return None
        self.study.enqueue_trial(left)
        return self._new()

    def _pair(self, trial: optuna.trial.Trial, number: int) -> None:
        """Let a trial end as trial `number` has ended, or will."""
        first = self._row(number)
        if first.state.is_finished():
            self._repeat(trial, first)
        else:
            self._record.add_trial(self._row(trial.number))
            self._twins.setdefault(number, []).append(trial)

    def _repeat(self, trial: optuna.trial.Trial, first: FrozenTrial) -> None:
        """End a trial as `first` ended, which has its point."""
        for epoch, value in first.intermediate_values.items():
            trial.report(value, epoch)
        if REASON in first.user_attrs:
            trial.set_user_attr(REASON, first.user_attrs[REASON])
        complete = first.state == TrialState.COMPLETE
        self.study.tell(trial, first.values if complete else None, first.state)
        self._record.repeat(self._row(trial.number))

    def _walk(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        return self._plan.ranges.walk(self._base, lambda key, range_: ask(trial, key, range_))

    def _end(self, trial_id: str, result: dict[str, Any], reason: str | None) -> None:
        trial = self._ot_trials[trial_id]
        if reason:
            trial.set_user_attr(REASON, reason)
            self.study.tell(trial, state=TrialState.FAIL)
        elif result.get("epoch", 0) < self._plan.epochs(trial.params):
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, [result[name] for name in self._plan.metrics])
        self._record.end(self._row(trial.number), reason)


def _drop_checkpoints(trial: RunFolder) -> None:
    """A finished trial needs its journals only: checkpoints of all trials would fill the disk."""
    for checkpoints in trial.path.glob("fold*/checkpoints"):
        shutil.rmtree(Path(checkpoints), ignore_errors=True)
