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

from dmlray.cluster.failures import DIED
from dmlray.cluster.record import Record
from dmlray.cluster.samplers import ask, sampler
from dmlray.errors import ConfigError
from dmlray.plans.folder import RunFolder
from dmlray.plans.search import Search
from dmlray.plans.space_checks import combinations

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Study(OptunaSearch):  # type: ignore[misc]  # Ray has no types
    """OptunaSearch that resumes begun trials, marks pruned ones and knows when to end.

    Raises:
        ConfigError: If the study in `folder` was begun with another plan.
    """

    def __init__(self, plan: Search, folder: RunFolder) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")
        self._plan, self._folder, self._base = plan, folder, plan.base()
        several = len(plan.metrics) > 1
        self._record = Record(folder.study, plan.modes)
        self._agree()
        past = self._record.trials()
        super().__init__(
            space=self._walk,
            metric=list(plan.metrics) if several else plan.metrics[0],
            mode=plan.modes if several else "max",
            points_to_evaluate=None if past else [plan.base_point()],
            sampler=sampler(plan.settings, len(past)),
        )
        self.study.add_trials(past)  # in memory, with the same numbers
        self._begun = [
            optuna.trial.Trial(self.study, row._trial_id)
            for row in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]
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
        """Trials still to run; a grid has no more than its combinations."""
        settings, wanted = self._plan.settings, self._plan.settings.trials
        if settings.sampler == "grid":
            wanted = min(wanted, combinations(self._plan.ranges, self._base))
        return max(0, wanted - len(self.finished()))

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
            self._ot_trials[trial_id] = self._begun.pop(0) if self._begun else self.study.ask()
        values = self._walk(self._ot_trials[trial_id])
        self._record.begin(self._row(trial_id))
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
        self._completed_trials.add(trial_id)
        self._record.afterwards(_drop_checkpoints, self._folder.trial(self.number(trial_id)))

    def settle(self) -> None:
        """Wait until all that was told is in the file."""
        self._record.settle()

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Tune wants a file; the study itself is the memory

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        metrics = self._plan.metrics
        if len(metrics) > 1 or metrics[0] not in result:  # Optuna has no curve of several
            return
        epoch, value = result["epoch"], result[metrics[0]]
        if self._row(trial_id).intermediate_values.get(epoch) != value:
            self._ot_trials[trial_id].report(value, epoch)
            self._record.report(self.number(trial_id), epoch, value)

    def _row(self, trial_id: str) -> FrozenTrial:
        rows: list[FrozenTrial] = self.study.get_trials(deepcopy=False)
        return rows[self.number(trial_id)]

    def _walk(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        return self._plan.ranges.walk(self._base, lambda key, range_: ask(trial, key, range_))

    def _end(self, trial_id: str, result: dict[str, Any], reason: str | None) -> None:
        trial = self._ot_trials[trial_id]
        if reason:
            trial.set_user_attr("reason", reason)
            self.study.tell(trial, state=TrialState.FAIL)
        elif result.get("epoch", 0) < self._plan.epochs(trial.params):
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, [result[name] for name in self._plan.metrics])
        self._record.end(self._row(trial_id), reason)

    def _agree(self) -> None:
        """The plan, which a person may have edited, must be the one of the study."""
        ours, theirs = self._plan.identity(), self._record.plan
        if theirs is None:
            self._record.plan = ours
        elif changed := sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)):
            raise ConfigError(
                str(self._folder.plan("search")),
                [
                    f"{key}: {ours.get(key, 'nothing')} contradicts the study, which was begun "
                    f"with {theirs.get(key, 'nothing')}. Allowed: that, or a new run"
                    for key in changed
                ],
            )


def _drop_checkpoints(trial: RunFolder) -> None:
    """A finished trial needs its journals only: checkpoints of all trials would fill the disk."""
    for checkpoints in trial.path.glob("fold*/checkpoints"):
        shutil.rmtree(Path(checkpoints), ignore_errors=True)
