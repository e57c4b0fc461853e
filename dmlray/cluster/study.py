"""The memory of a search: Optuna's SQLite study, and nothing else.

A resumed search asks it what is done, what was begun and what was never asked. Begun trials keep
their number, values and folder, so their folds go on from their checkpoints and nothing is
trained twice.
"""

import shutil
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search.optuna import OptunaSearch

from dmlray.errors import RunError
from dmlray.knobs import Choice, Float, Int, Space
from dmlray.plans.folder import RunFolder
from dmlray.plans.search import Search

NAME = "dmlray"
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)


class Study(OptunaSearch):  # type: ignore[misc]  # Ray has no types
    """OptunaSearch that resumes begun trials and tells the study which ones were pruned."""

    def __init__(self, plan: Search, folder: RunFolder) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", message="The reported value is ignored", module="optuna")
        storage = optuna.storages.RDBStorage(f"sqlite:///{folder.study}")
        known = NAME in optuna.get_all_study_names(storage)
        super().__init__(
            space=lambda trial: _suggest(trial, plan.space),
            metric=plan.experiment.protocol.metric,
            mode="max",
            points_to_evaluate=None if known else [plan.base_point()],
            sampler=_sampler(plan, 0 if not known else _asked(storage)),
            study_name=NAME,
            storage=storage,
        )
        self._epochs = plan.experiment.budget.epochs
        self._folder = folder
        self._begun = [
            optuna.trial.Trial(self._ot_study, row._trial_id)
            for row in self._ot_study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        ]

    def finished(self) -> list[FrozenTrial]:
        """Trials that ended, well or not."""
        rows: list[FrozenTrial] = self._ot_study.get_trials(deepcopy=False, states=_FINISHED)
        return rows

    def number(self, trial_id: str) -> int:
        """Optuna's number of a Tune trial: the name of its folder."""
        return int(self._ot_trials[trial_id].number)

    def values(self, trial_id: str) -> dict[str, Any]:
        """What was suggested to it."""
        return dict(self._ot_trials[trial_id].params)

    def best(self) -> FrozenTrial:
        """The complete trial with the highest metric after its last epoch."""
        complete = [row for row in self.finished() if row.state == TrialState.COMPLETE]
        if not complete:
            reasons = {row.user_attrs.get("reason", "its process died") for row in self.finished()}
            raise RunError(f"no trial succeeded: {'; '.join(sorted(reasons))}")
        return max(complete, key=lambda row: (row.value, -row.number))

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if trial_id not in self._ot_trials and self._begun:
            self._ot_trials[trial_id] = self._begun.pop(0)
        values = super().suggest(trial_id)
        return {"number": self.number(trial_id), "values": values}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        row = self._ot_trials[trial_id]
        result = result or {}
        self.on_trial_result(trial_id, result)  # Tune keeps a trial's last result to itself
        if error or "error" in result:
            row.set_user_attr("reason", result.get("error", "its process died"))
            self._ot_study.tell(row, state=TrialState.FAIL)
        elif result.get("epoch", 0) < self._epochs:
            self._ot_study.tell(row, state=TrialState.PRUNED)
        else:
            self._ot_study.tell(row, result[self._metric])
        self._completed_trials.add(trial_id)
        _drop_checkpoints(self._folder.trial(row.number))

    def save(self, checkpoint_path: str) -> None:
        Path(checkpoint_path).touch()  # Tune wants a file; the study itself is the memory

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if self._metric in result:
            self._ot_trials[trial_id].report(result[self._metric], result["epoch"])


def _sampler(plan: Search, asked: int) -> optuna.samplers.BaseSampler:
    """An explicit sampler; a resumed one draws anew, not the same numbers again."""
    seed = plan.settings.seed + asked
    if plan.settings.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=plan.settings.startup_trials,
        multivariate=True,
        constant_liar=True,  # trials run side by side
    )


def _asked(storage: optuna.storages.BaseStorage) -> int:
    return len(optuna.load_study(study_name=NAME, storage=storage).get_trials(deepcopy=False))


def _suggest(trial: optuna.trial.Trial, space: Space) -> None:
    for key, distribution in space.items():
        match distribution:
            case Float(low, high, log, step):
                trial.suggest_float(key, low, high, log=log, step=step)
            case Int(low, high, log, step):
                trial.suggest_int(key, low, high, log=log, step=step)
            case Choice(values):
                trial.suggest_categorical(key, list(values))


def _drop_checkpoints(trial: RunFolder) -> None:
    """A finished trial needs its journals only: checkpoints of all trials would fill the disk."""
    for checkpoints in trial.path.glob("fold*/checkpoints"):
        shutil.rmtree(Path(checkpoints), ignore_errors=True)
