"""Make the report of a search from its study."""

import math
from typing import Any

from optuna import Study as OptunaStudy
from optuna import create_study
from optuna.trial import FrozenTrial, TrialState

from dmlray.cluster.search.study_checks import read_study
from dmlray.cluster.search.study_storage import IMPORTED, REASON, SAME_AS, directions
from dmlray.distributions import Choice, Distribution
from dmlray.errors import ConfigError
from dmlray.learn import metrics_log
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search
from dmlray.reporting.search_report import Row, SearchReport

_ENOUGH = 8  # complete trials needed to estimate importance
_TREES = 16  # of fANOVA's forest; 64 give the same keys in four times the time
_EDGE = 0.01  # of a range, on its scale (linear or log)


def read_results(plan: Search, folder: RunFolder) -> SearchReport:
    """Make the report of a search from its files, be it at its end or not.

    Raises:
        ConfigError: If no trial has ended, or the study is damaged or of another plan.
    """
    rows = read_study(plan, folder)
    if not any(row.state.is_finished() for row in rows):
        raise ConfigError(str(folder), ["none of its trials has ended yet; go on with `resume`"])
    study = create_study(directions=directions(plan.modes))
    study.add_trials(rows)
    return find(plan, folder, study)


def find(plan: Search, folder: RunFolder, study: OptunaStudy) -> SearchReport:
    """Collect the results of all ended trials."""
    trials = [row for row in study.get_trials(deepcopy=False) if row.state.is_finished()]
    rows = {trial.number: _row(plan, folder, trial) for trial in trials}
    trained = [row for row in rows.values() if row.same_as is None]
    complete = [row for row in trained if row.state == TrialState.COMPLETE.name]
    several = len(plan.metrics) > 1
    best = {trial.number for trial in study.best_trials} if several and complete else ()
    front = [row for row in complete if row.number in best]
    first = plan.metrics[0]
    winner = max(front or complete, key=lambda row: (row.metrics[first], -row.number), default=None)
    return SearchReport(
        metrics=plan.metrics,
        rows=list(rows.values()),
        best=winner,
        front=sorted(front, key=lambda row: -row.metrics[first]),
        importances=_importances(study) if len(complete) >= _ENOUGH else {},
        warnings=_edges(plan, winner) if winner else [],
    )


def _row(plan: Search, folder: RunFolder, trial: FrozenTrial) -> Row:
    lines = metrics_log.read(folder.trial(trial.number).metrics)
    last: dict[str, Any] = lines[-1] if lines else {}
    metrics = {name: last[name] for name in plan.metrics if name in last}
    imported: dict[str, Any] = trial.user_attrs.get(IMPORTED, {})
    if imported:  # its metrics log is in the other run
        last = {"epoch": trial.last_step or plan.epochs(trial.params)}
    if imported and trial.last_step:
        metrics = {plan.metrics[0]: trial.intermediate_values[trial.last_step]}
    if trial.state == TrialState.COMPLETE:  # the study is authoritative
        metrics = dict(zip(plan.metrics, trial.values, strict=True))
    return Row(
        trial.number,
        trial.state.name,
        metrics,
        dict(trial.params),
        epochs=int(last.get("epoch", 0)),
        planned_epochs=plan.epochs(trial.params),
        folds=imported.get("folds") or fold_values(plan, folder, trial),
        seconds=last.get("seconds"),
        reason=trial.user_attrs.get(REASON),
        same_as=trial.user_attrs.get(SAME_AS),
        imported=imported.get("from"),
    )


def fold_values(plan: Search, folder: RunFolder, trial: FrozenTrial) -> list[float]:
    """The first metric of a trial's last epoch on each fold, from its metrics log."""
    lines = metrics_log.read(folder.trial(trial.number).metrics)
    keys = [f"fold{n}/{plan.metrics[0]}" for n in range(plan.experiment.protocol.fold_count)]
    return [lines[-1][key] for key in keys if key in lines[-1]] if lines else []


def _importances(study: OptunaStudy) -> dict[str, float]:
    """Return each key's share of the first metric's variance, for keys that all trials have."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances  # 50 MB

    try:
        return get_param_importances(
            study,
            evaluator=FanovaImportanceEvaluator(n_trees=_TREES, seed=0),
            target=lambda trial: float(trial.values[0]),
        )
    except (RuntimeError, ValueError):  # all trials scored the same
        return {}


def _edges(plan: Search, best: Row) -> list[str]:
    return [
        f"{key} = {value:.4g} of the best trial lies on a bound of its range "
        f"({range_.low:g} to {range_.high:g}); a wider range may hold a better one"
        for key, value in best.values.items()
        if not isinstance(range_ := plan.ranges.space[key], Choice) and _on_edge(range_, value)
    ]


def _on_edge(range_: Distribution, value: float) -> bool:
    assert not isinstance(range_, Choice)
    if range_.low == range_.high:
        return False
    scale = math.log if range_.log else float
    share = (scale(value) - scale(range_.low)) / (scale(range_.high) - scale(range_.low))
    return min(share, 1 - share) < _EDGE
