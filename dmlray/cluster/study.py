"""The memory of a search: Optuna's SQLite study, and nothing else.

A resumed search asks it what is done, what was begun and what was never asked. Begun trials keep
their number, values and folder, so their folds go on from their checkpoints and nothing is
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

from dmlray.cluster.samplers import ask, sampler
from dmlray.errors import ConfigError
from dmlray.plans.folder import RunFolder
from dmlray.plans.search import Search
from dmlray.plans.space_checks import combinations

NAME = "dmlray"
DIED = "its process died"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_PLAN = "plan"  # the study's own note of what it searches


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
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder.study}")
        known = NAME in optuna.get_all_study_names(storage)
        asked = len(_load(storage).get_trials(deepcopy=False)) if known else 0
        several = len(plan.metrics) > 1
        super().__init__(
            space=self._walk,
            metric=list(plan.metrics) if several else plan.metrics[0],
            mode=plan.modes if several else "max",
            points_to_evaluate=None if asked else [plan.base_point()],
            sampler=sampler(plan.settings, asked),
            study_name=NAME,
            storage=storage,
        )
        self._agree()
        self._begun = [
            optuna.trial.Trial(self.study, row._trial_id)
            for row in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]
        self._failures: list[str] = []  # since the last trial that ended well
        self._unfinished: str | None = None  # why begun trials are left for the next session
        budget = plan.settings.time_budget
        self._deadline = time.monotonic() + budget if budget else float("inf")

    @property
    def study(self) -> optuna.Study:
        """Optuna's own."""
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

    def values(self, trial_id: str) -> dict[str, Any]:
        """What was suggested to it."""
        return dict(self._ot_trials[trial_id].params)

    def is_published(self, trial_id: str) -> bool:
        """Whether it is trial 0, the experiment's own point."""
        return self.number(trial_id) == 0

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        if self.stopped_by or self.out_of_time:
            return str(Searcher.FINISHED)
        if trial_id not in self._ot_trials:
            self._ot_trials[trial_id] = self._begun.pop(0) if self._begun else self.study.ask()
        values = self._walk(self._ot_trials[trial_id])
        return {"number": self.number(trial_id), "values": values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        row, result = self._ot_trials[trial_id], result or {}
        self.on_trial_result(trial_id, result)  # Tune keeps a trial's last result to itself
        if "unfinished" in result:
            self._unfinished = result["unfinished"]
            return
        if error or "error" in result:
            reason = result.get("error", DIED)
            self._failures.append(reason)
            row.set_user_attr("reason", reason)
            self.study.tell(row, state=TrialState.FAIL)
        else:
            self._failures.clear()
            self._tell(row, result)
        self._completed_trials.add(trial_id)
        _drop_checkpoints(self._folder.trial(row.number))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Tune wants a file; the study itself is the memory

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        metrics = self._plan.metrics
        if len(metrics) == 1 and metrics[0] in result:  # Optuna has no curve of several
            self._ot_trials[trial_id].report(result[metrics[0]], result["epoch"])

    def _walk(self, trial: optuna.trial.Trial) -> dict[str, Any]:
        return self._plan.ranges.walk(self._base, lambda key, range_: ask(trial, key, range_))

    def _tell(self, row: optuna.trial.Trial, result: dict[str, Any]) -> None:
        if result.get("epoch", 0) < self._plan.epochs(row.params):
            self.study.tell(row, state=TrialState.PRUNED)
        else:
            self.study.tell(row, [result[name] for name in self._plan.metrics])

    def _agree(self) -> None:
        """The plan, which a person may have edited, must be the one of the study."""
        ours = self._plan.identity()
        theirs = self.study.user_attrs.get(_PLAN)
        if theirs is None:
            self.study.set_user_attr(_PLAN, ours)
        elif changed := sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k)):
            raise ConfigError(
                str(self._folder.plan("search")),
                [
                    f"{key}: {ours.get(key, 'nothing')} contradicts the study, which was begun "
                    f"with {theirs.get(key, 'nothing')}. Allowed: that, or a new run"
                    for key in changed
                ],
            )


def _load(storage: optuna.storages.BaseStorage) -> optuna.Study:
    return optuna.load_study(study_name=NAME, storage=storage)


def _drop_checkpoints(trial: RunFolder) -> None:
    """A finished trial needs its journals only: checkpoints of all trials would fill the disk."""
    for checkpoints in trial.path.glob("fold*/checkpoints"):
        shutil.rmtree(Path(checkpoints), ignore_errors=True)
