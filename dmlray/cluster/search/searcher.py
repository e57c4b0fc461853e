"""Suggest points to Ray Tune from an Optuna study that is kept in a file.

A resumed search reads there which trials finished, which started and which are missing. Started
trials keep their number, values and folder: their folds resume from their checkpoints.
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

from dmlray.cluster.error_messages import DIED
from dmlray.cluster.search.points import Points
from dmlray.cluster.search.samplers import ask, sampler
from dmlray.cluster.search.start_points import Start, read_start
from dmlray.cluster.search.study_checks import read_study
from dmlray.cluster.search.study_storage import (
    IMPORTED,
    POINT,
    REASON,
    SAME_AS,
    End,
    StudyStorage,
    create,
    directions,
)
from dmlray.learn.environment import recorded_fingerprint
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class StudySearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Ray Tune searcher that asks an Optuna study in memory and records it in a file.

    Started trials are resumed and stopped ones marked as pruned. No point is trained twice: a trial
    with the point of an earlier one ends as that one does, and names its number.

    Trials that run at the same time end in an order that depends on the machine. A seed gives the
    same points in any order if each suggestion waits for all trials but the `at_once - 1` before
    it, and uses their results and no others.

    Args:
        plan: The search.
        folder: Its run folder.
        at_once: Trials that run at the same time; None where suggestions use all that has ended.

    Attributes:
        study: Optuna's study, in memory.
        note: What a new study began with, see `start_from`; empty where it is nothing.

    Raises:
        ConfigError: If the study in `folder` is damaged or belongs to another plan.
    """

    def __init__(self, plan: Search, folder: RunFolder, at_once: int | None = None) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")
        self._plan, self._folder, self._base = plan, folder, plan.base()
        super().__init__(metric=list(plan.metrics), mode=list(plan.modes))
        past = read_study(plan, folder)
        start = Start()
        if not folder.study.exists():
            start = read_start(plan, recorded_fingerprint(folder))
            create(folder.study, plan.modes, plan.identity(), start.trials, start.points)
            past = start.trials
        self.note = start.note
        self._record = StudyStorage(folder.study)
        for row in past:
            row.system_attrs = {}  # of earlier samplers; CMA-ES's would be unpickled
        self.study = optuna.create_study(
            sampler=sampler(plan.settings, len(past)),
            pruner=optuna.pruners.NopPruner(),
            directions=directions(plan.modes),
        )
        self._first = [*([] if past else [plan.base_point()]), *self._record.start_points()]
        self.study.add_trials(past)  # with the same numbers
        self._trials: dict[str, optuna.trial.Trial] = {}  # by Ray Tune's id, as suggested
        self._at_once = at_once
        self._held: dict[str, End] = {}  # of trials that ended, which the sampler does not know yet
        self._points = Points(plan, plan.settings.seed + len(past))
        self._repeats: dict[int, list[optuna.trial.Trial]] = {}  # end as a running one does
        self._started: list[optuna.trial.Trial] = []
        for row in self.study.get_trials(deepcopy=False):
            self._recover(row)
        self._failures: list[str] = []  # since the last success
        self._unfinished: str | None = None  # why started trials wait for the next session
        budget = plan.settings.time_budget
        self._deadline = time.monotonic() + budget if budget else float("inf")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its searcher repeatedly; a resumed search makes a new one

    @property
    def missing(self) -> int:
        """Trials still to run; each point of the space is run once, imported ones are."""
        ran = [row for row in self.finished() if SAME_AS not in row.user_attrs]
        tried = {self._plan.ranges.fingerprint(row.params) for row in ran}
        own = sum(IMPORTED not in row.user_attrs for row in ran)
        wanted = min(self._plan.settings.trials - own, self._plan.size - len(tried))
        return int(max(0, wanted))

    @property
    def stopped_by(self) -> str | None:
        """Reason to end early: a full disk, or the most common of too many failures in a row."""
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
        """Return the trials that ended, successfully or not."""
        rows: list[FrozenTrial] = self.study.get_trials(deepcopy=False, states=_FINISHED)
        return rows

    def number(self, trial_id: str) -> int:
        """Return Optuna's number of a Tune trial, the name of its folder."""
        return int(self._trials[trial_id].number)

    def is_published(self, trial_id: str) -> bool:
        """Whether it is trial 0, the experiment's point."""
        return self.number(trial_id) == 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the values of a new or resumed trial, FINISHED, or None to ask again later."""
        if self.stopped_by or self.out_of_time:
            return str(Searcher.FINISHED)
        if trial_id not in self._trials:
            if not self._tell_older():
                return None
            trial = self._started.pop(0) if self._started else self._new()
            if trial is None:
                return str(Searcher.FINISHED)
            self._trials[trial_id] = trial
        values = self._sample(self._trials[trial_id])
        self._record.add_trial(self._row(self.number(trial_id)))
        return {"number": self.number(trial_id), "values": values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record how a trial ended in the study."""
        result = result or {}
        self.on_trial_result(trial_id, result)  # Tune does not report a trial's last result
        if "unfinished" in result:
            self._unfinished = result["unfinished"]
            return
        reason = result.get("error", DIED if error else None)
        if reason:
            self._failures.append(reason)
        else:
            self._failures.clear()
        number, end = self.number(trial_id), self._end(trial_id, result, reason)
        self._held[trial_id] = end
        self._record.end(number, end)
        if self._at_once is None:
            self._tell(trial_id)
        self._record.submit(_drop_checkpoints, self._folder.trial(number))

    def flush(self) -> None:
        """Tell the study all that has ended; wait until the file has every record."""
        for held in [trial_id for trial_id in self._trials if trial_id in self._held]:
            self._tell(held)
        self._record.flush()

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: the study keeps the state."""
        Path(checkpoint_path).touch()  # Tune requires a file; the study is stored elsewhere

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report an epoch's metric to Optuna."""
        metrics = self._plan.metrics
        if len(metrics) > 1 or metrics[0] not in result:  # Optuna has no curves of several metrics
            return
        epoch, value = result["epoch"], result[metrics[0]]
        if self._row(self.number(trial_id)).intermediate_values.get(epoch) != value:
            self._trials[trial_id].report(value, epoch)
            self._record.report(self.number(trial_id), epoch, value)

    def _row(self, number: int) -> FrozenTrial:
        rows: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return rows[number]

    def _recover(self, row: FrozenTrial) -> None:
        """Resume a trial of an earlier session that has not ended."""
        if SAME_AS not in row.user_attrs:
            self._points.claim(row.params, row.number)
        if row.state == TrialState.RUNNING:
            trial = optuna.trial.Trial(self.study, row._trial_id)
            if SAME_AS in row.user_attrs:
                self._pair(trial, row.user_attrs[SAME_AS])
            else:
                self._started.append(trial)

    def _new(self) -> optuna.trial.Trial | None:
        """Ask for a trial with a new point; None if none is left.

        A repeated point is reported to the sampler with its known value, and the next point is
        drawn from the remaining ones.
        """
        first = next((point for point in self._first if self._points.is_new(point)), None)
        if first is not None:
            self.study.enqueue_trial(first)
        trial = self.study.ask()
        point = self._sample(trial)
        trial.set_user_attr(POINT, point)
        owner = self._points.claim(point, trial.number)
        if owner == trial.number:
            return trial
        trial.set_user_attr(SAME_AS, owner)
        self._pair(trial, owner)
        left = self._points.left()
        if left is None:
            return None
        self.study.enqueue_trial(left)
        return self._new()

    def _pair(self, trial: optuna.trial.Trial, number: int) -> None:
        """Let a trial end as trial `number` ended, or will end."""
        first = self._row(number)
        if first.state.is_finished():
            self._repeat(trial, first)
        else:
            self._record.add_trial(self._row(trial.number))
            self._repeats.setdefault(number, []).append(trial)

    def _repeat(self, trial: optuna.trial.Trial, first: FrozenTrial) -> None:
        """End a trial as `first` ended, which has its point."""
        for epoch, value in first.intermediate_values.items():
            trial.report(value, epoch)
        if REASON in first.user_attrs:
            trial.set_user_attr(REASON, first.user_attrs[REASON])
        complete = first.state == TrialState.COMPLETE
        self.study.tell(trial, first.values if complete else None, first.state)
        self._record.repeat(self._row(trial.number))

    def _tell_older(self) -> bool:
        """Tell the study what the next suggestion uses; False if some of it has not ended."""
        if self._at_once is None:
            return True
        older = list(self._trials)[: max(0, len(self._trials) - self._at_once + 1)]
        rows = self.study.get_trials(deepcopy=False)
        open_ = [name for name in older if not rows[self.number(name)].state.is_finished()]
        if any(trial_id not in self._held for trial_id in open_):
            return False
        for trial_id in open_:
            self._tell(trial_id)
        return True

    def _tell(self, trial_id: str) -> None:
        """Tell the study how a trial ended."""
        trial, end = self._trials[trial_id], self._held.pop(trial_id)
        if end.reason:
            trial.set_user_attr(REASON, end.reason)
        complete = end.state == TrialState.COMPLETE
        self.study.tell(trial, end.values if complete else None, end.state)
        for repeat in self._repeats.pop(trial.number, []):
            self._repeat(repeat, self._row(trial.number))

    def _sample(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        return self._plan.ranges.walk(self._base, lambda key, range_: ask(trial, key, range_))

    def _end(self, trial_id: str, result: dict[str, Any], reason: str | None) -> End:
        if reason:
            return End(TrialState.FAIL, reason=reason)
        if result.get("epoch", 0) < self._plan.epochs(self._trials[trial_id].params):
            reported = self._row(self.number(trial_id)).intermediate_values
            return End(TrialState.PRUNED, [reported[max(reported)]] if reported else None)
        return End(TrialState.COMPLETE, [result[name] for name in self._plan.metrics])


def _drop_checkpoints(trial: RunFolder) -> None:
    """Delete the checkpoints of a finished trial: those of all trials would fill the disk."""
    for checkpoints in trial.path.glob("fold*/checkpoints"):
        shutil.rmtree(Path(checkpoints), ignore_errors=True)
