"""Read a study, checking it and its agreement with the plan and the metrics logs."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from math import isfinite
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from dmlray.cluster.search.samplers import optuna_range
from dmlray.cluster.search.study_storage import (
    NAME,
    PATIENCE,
    PLAN,
    POINT,
    REASON,
    SAME_AS,
    directions,
    storage,
)
from dmlray.errors import ConfigError
from dmlray.learn import metrics_log
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search
from dmlray.plans.search_settings import COSTS

_ROUNDING = 1e-6  # of a mean of fractions
_MAX_PROBLEMS = 5  # of trials, listed
_REMEDY = "Restore it from a copy, or begin a new run (`out`)"


def read_study(plan: Search, folder: RunFolder) -> list[FrozenTrial]:
    """Read all trials of the study in `folder`, in order; [] without a study. Writes nothing.

    Raises:
        ConfigError: If the study is missing although trials exist, damaged, in use, or of another
            plan.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if not folder.study.exists() and not folder.study.is_symlink():
        if left := next(_results(folder), None):
            raise _refused(folder, f"is missing, {left} is not. {_REMEDY}")
        return []
    _whole(folder)
    try:
        kept, study, rows = _rows(folder)
        check_agreement(plan, folder, kept)
        problems = [*_header(plan, study), *_numbers(folder, rows)]
        problems = problems or list(_trials(plan, folder, rows))
    except ConfigError:
        raise
    except Exception as error:  # damaged rows raise nearly anything in SQLAlchemy and Optuna
        raise _refused(folder, _unreadable(error)) from None
    if problems:
        more = (
            [f"{len(problems) - _MAX_PROBLEMS} more trials like these"]
            if problems[_MAX_PROBLEMS:]
            else []
        )
        *listed, last = [*problems[:_MAX_PROBLEMS], *more]
        raise _refused(folder, *listed, f"{last}. {_REMEDY}")
    return rows


def check_agreement(plan: Search, folder: RunFolder, recorded: dict[str, Any]) -> None:
    """Check that the plan, which a user may have edited, is that of the study."""
    current = plan.identity()
    if changed := sorted(k for k in {*current, *recorded} if current.get(k) != recorded.get(k)):
        raise ConfigError(
            f"{folder}/{folder.plan('search').name}",
            [
                f"{key}: {current.get(key, 'nothing')} contradicts the study, which was begun "
                f"with {recorded.get(key, 'nothing')}. Allowed: that, or a new run"
                for key in changed
            ],
        )


def _refused(folder: RunFolder, *problems: str) -> ConfigError:
    return ConfigError(f"{folder}/{folder.study.name}", problems)


def _unreadable(error: Exception) -> str:
    if type(error) is RuntimeError and "version" in str(error):  # Optuna's, of its tables
        return f"was made by another Optuna: {str(error).split('. ')[0]}. Allowed: that version"
    return f"is damaged ({_first_line(error)}). {_REMEDY}"


def _first_line(error: Exception) -> str:
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".split("\n")[0].removesuffix(": ")


def _results(folder: RunFolder) -> Iterator[str]:
    """Yield files that prove that a study existed: trials with epochs, and reports."""
    yield from (f"{trial.parent.name}/{trial.name}" for trial in _trained(folder))
    reports = (folder.trials, folder.pareto, folder.best)
    yield from (path.name for path in reports if path.exists())


def _trained(folder: RunFolder, first: int = 0) -> Iterator[Path]:
    """Return folders of trials from number `first` on that have a metrics log."""
    trials = folder.trial(0).path.parent
    paths = sorted(trials.iterdir()) if trials.is_dir() else []
    numbered = (path for path in paths if path.name.isdecimal() and int(path.name) >= first)
    return (path for path in numbered if next(path.rglob(folder.metrics.name), None))


def _whole(folder: RunFolder) -> None:
    """Check that the study is a valid SQLite file that no other process writes to."""
    if not folder.study.is_file():
        raise _refused(folder, f"is not a file. {_REMEDY}")
    if not folder.study.stat().st_size:
        raise _refused(folder, f"is empty. {_REMEDY}")
    try:
        with closing(sqlite3.connect(folder.study, timeout=PATIENCE)) as file:
            result = [row[0] for row in file.execute("PRAGMA integrity_check(1)")]
            file.execute("BEGIN IMMEDIATE")
    except (sqlite3.Error, UnicodeError) as error:
        if "locked" in str(error):
            problem = "is in use by another process. Allowed: wait for it, or end it"
        elif "readonly" in str(error) or "unable to open" in str(error):
            problem = f"cannot be read and written ({error})"
        else:
            problem = f"is damaged ({error}). {_REMEDY}"
        raise _refused(folder, problem) from None
    if result != ["ok"]:
        raise _refused(folder, f"is damaged ({result[0].splitlines()[-1]}). {_REMEDY}")


def _rows(
    folder: RunFolder,
) -> tuple[dict[str, Any], list[StudyDirection], list[FrozenTrial]]:
    """Read the recorded plan, the directions and the trials."""
    opened = storage(folder.study, checking=True)
    try:
        studies = {study.study_name: study for study in opened.get_all_studies()}
        if NAME not in studies:
            others = ", ".join(map(repr, studies)) or "no study"
            raise _refused(folder, f"holds {others} and none named {NAME!r}. {_REMEDY}")
        study = studies[NAME]
        rows = opened.get_all_trials(study._study_id, deepcopy=False)
        note = study.user_attrs.get(PLAN)
        if not isinstance(note, dict):
            raise _refused(folder, f"does not have the plan of its search. {_REMEDY}")
        return note, study.directions, rows
    finally:
        opened.remove_session()
        opened.engine.dispose()


def _header(plan: Search, recorded: list[StudyDirection]) -> Iterator[str]:
    if recorded != directions(plan.modes):
        yield f"its directions are not those of {', '.join(plan.metrics)}"


def _numbers(folder: RunFolder, rows: list[FrozenTrial]) -> Iterator[str]:
    if [row.number for row in rows] != list(range(len(rows))):
        yield f"its trials are not numbered from 0 to {len(rows) - 1}, each once"
    if lost := next(_trained(folder, len(rows)), None):
        yield f"knows {len(rows)} trials, but {lost.parent.name}/ holds {lost.name}"


def _trials(plan: Search, folder: RunFolder, rows: list[FrozenTrial]) -> Iterator[str]:
    """Yield the first problem of each trial; later checks rely on earlier ones."""
    base = plan.base()
    for row in rows:
        checks = (
            _point(plan, base, row),
            _state(plan, row),
            _same(plan, row, rows),
            _recorded_otherwise(plan, folder, row),
        )
        if problem := next(chain.from_iterable(checks), None):
            yield f"trial {row.number}: {problem}"


def _point(plan: Search, base: dict[str, Any], row: FrozenTrial) -> Iterator[str]:
    """Check that the values are a point of the space, and were suggested."""
    space = plan.ranges.space
    try:
        row._validate()
    except ValueError as error:
        yield str(error).rstrip(".")
        return
    keys = set(plan.ranges.walk(base, lambda key, _: row.params.get(key)))
    if keys != set(row.params) or any(
        row.distributions[key] != optuna_range(space[key]) or not space[key].contains(value)
        for key, value in row.params.items()
    ):
        yield "its values are not a point of the space"
    elif row.number == 0 and row.params != plan.base_point():
        yield "its values are not the experiment's own"
    elif row.user_attrs.get(POINT, row.params) != row.params:
        yield "its values are not those that were suggested"


def _state(plan: Search, row: FrozenTrial) -> Iterator[str]:
    """Check that state, values and epochs agree, and that numbers are in range."""
    epochs, several = plan.epochs(row.params), len(plan.metrics) > 1
    last = max(row.intermediate_values, default=None)
    if row.state == TrialState.WAITING:
        yield "it is WAITING, which trials of a search never are"
    if row.state == TrialState.COMPLETE and len(row.values) != len(plan.metrics):
        yield f"it has {len(row.values)} values for {len(plan.metrics)} metrics"
    if not all(map(isfinite, [*(row.values or ()), *row.intermediate_values.values()])):
        yield "its values are not finite"
    scores = [*row.intermediate_values.values()]
    scores += [
        value
        for name, value in zip(plan.metrics, row.values or (), strict=False)
        if name not in COSTS
    ]
    if not all(0 <= score <= 1 + _ROUNDING for score in scores):
        yield "its scores are not fractions in [0, 1]"
    if last is not None and (several or not 1 <= min(row.intermediate_values) <= last <= epochs):
        yield f"its epochs are not among 1 to {epochs}"
    if last is not None and (
        (row.state == TrialState.COMPLETE and last != epochs)
        or (row.state == TrialState.PRUNED and last == epochs)
    ):
        yield f"it is {row.state.name} after {last} of {epochs} epochs"
    if last is not None and row.values and row.values[0] != row.intermediate_values[last]:
        yield "its value is not that of its last epoch"
    if not isinstance(row.user_attrs.get(REASON, ""), str):
        yield "its reason is not text"


def _same(plan: Search, row: FrozenTrial, rows: list[FrozenTrial]) -> Iterator[str]:
    """Check that a repeated point has the point and the result of an earlier trial."""
    if SAME_AS not in row.user_attrs:
        return
    number = row.user_attrs[SAME_AS]
    if not isinstance(number, int) or not 0 <= number < row.number:
        yield f"it repeats trial {number}, which is not an earlier one"
        return
    first = rows[number]
    begun = TrialState.RUNNING in (row.state, first.state)  # a kill may lose the end of one of them
    alike = begun or (row.state, row.values) == (first.state, first.values)
    points = [plan.ranges.fingerprint(trial.params) for trial in (row, first)]
    if SAME_AS in first.user_attrs or points[0] != points[1] or not alike:
        yield f"it differs from trial {number}, which it repeats"


def _recorded_otherwise(plan: Search, folder: RunFolder, row: FrozenTrial) -> Iterator[str]:
    """Compare the trial with its metrics log, if there is one."""
    first, epochs = plan.metrics[0], plan.epochs(row.params)
    for line in metrics_log.read(folder.trial(row.number).metrics):
        kept = [(first, v) for n, v in row.intermediate_values.items() if n == line["epoch"]]
        if row.state == TrialState.COMPLETE and line["epoch"] == epochs:
            kept += zip(plan.metrics, row.values, strict=True)
        for name, value in kept:
            if line.get(name, value) != value:
                yield f"{name} is {value}, and {line[name]} in its {folder.metrics.name}"
