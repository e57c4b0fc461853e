"""What a search begins with beside trial 0: points, and results of another search, `start_from`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from dmlray.cluster.search.results import fold_values
from dmlray.cluster.search.study_checks import read_study
from dmlray.cluster.search.study_storage import IMPORTED, POINT, SAME_AS
from dmlray.distributions import Choice, Distribution, Int, Value
from dmlray.errors import ConfigError
from dmlray.learn.environment import recorded_fingerprint
from dmlray.local_paths import local_path
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.config_sources import flatten
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search, read_search
from dmlray.plans.space_checks import refusal
from dmlray.printable import shortened

_WHERE = "start_from"
Point = dict[str, Any]


@dataclass(frozen=True)
class Start:
    """Trials of another search with their results, points to be trained first, and a sentence."""

    trials: list[FrozenTrial] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    note: str = ""


def read_start(plan: Search, fingerprint: str | None) -> Start:
    """Read what `start_from` of the plan names.

    Results count where the other search has the same space, metric, experiment and images, of
    which `fingerprint` is known here; otherwise its points are trained again, the best first.

    Raises:
        ConfigError: If it cannot be read, or a point does not lie in the space.
    """
    source = plan.settings.start_from
    if source is None:
        return Start()
    if not isinstance(source, str):
        return Start(points=_given(plan, source))
    try:
        path = local_path(source)
    except ValueError as error:
        raise ConfigError(_WHERE, [str(error)]) from None
    if path.is_dir():
        return _of_search(plan, RunFolder(path), fingerprint)
    values = flatten(read_experiment(path).experiment.document())
    return Start(points=[_inside(plan, values, f"{source}: ")])


def _given(plan: Search, points: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Points of the file; keys that one leaves out are as in the experiment."""
    found = []
    for number, given in enumerate(points, 1):
        where, flat = f"point {number}: ", flatten(given)
        for key in flat:
            if key not in plan.ranges.space:
                known = nearest_or_all(key, plan.ranges.space)
                raise ConfigError(_WHERE, [f"{where}{key} is not searched.{known}"])
        point = _inside(plan, {**plan.base(), **flat}, where)
        if unused := next((key for key in flat if key not in point), None):
            raise ConfigError(_WHERE, [f"{where}{unused} has no effect there: see its `when`"])
        if problem := refusal(plan.experiment, point):
            raise ConfigError(_WHERE, [f"{where}{problem}"])
        found.append(point)
    return found


def _inside(plan: Search, values: Mapping[str, Any], where: str) -> Point:
    """The point of the space with these values of an experiment, by dotted key.

    Raises:
        ConfigError: If it lies outside.
    """

    def take(key: str, range_: Distribution) -> Value:
        if key not in values:
            raise ConfigError(_WHERE, [f"{where}has no {key}, which is searched"])
        if not range_.contains(values[key]):
            allowed = f"Allowed: {_allowed(range_)}"
            raise ConfigError(_WHERE, [f"{where}{key} = {shortened(values[key])}. {allowed}"])
        return _typed(range_, values[key])

    return plan.ranges.walk(plan.base(), take)


def _typed(range_: Distribution, value: Any) -> Value:
    """The value as the range itself has it: 64.0 of a file may be the choice 64."""
    if isinstance(range_, Choice):
        return range_.values[range_.values.index(value)]
    return int(value) if isinstance(range_, Int) else float(value)


def _allowed(range_: Distribution) -> str:
    if isinstance(range_, Choice):
        return ", ".join(map(str, range_.values))
    step = f" in steps of {range_.step:g}" if range_.step else ""
    return f"{range_.low:g} to {range_.high:g}{step}"


def _of_search(plan: Search, folder: RunFolder, fingerprint: str | None) -> Start:
    if (kind := folder.kind()) != "search":
        allowed = "Allowed: a search, a file of an experiment such as best.yaml, or points"
        raise ConfigError(_WHERE, [f"{folder} holds {kind}.yaml. {allowed}"])
    other = read_search(folder.plan("search"))
    rows = [row for row in read_study(other, folder) if _has_result(row)]
    if not rows:
        raise ConfigError(_WHERE, [f"{folder}: none of its trials has a result yet"])
    differs = _differs(plan, other, rows, recorded_fingerprint(folder) == fingerprint)
    if not differs:
        trials = [_imported(other, folder, row) for row in rows]
        return Start(trials, note=f"{len(trials)} results of {folder} are taken over")
    points = list(_points(plan, other, rows))
    if not points:
        problem = f"no trial of {folder} lies in this space"
        raise ConfigError(_WHERE, [f"{problem}. Allowed: a search of a similar space, or points"])
    note = f"{len(points)} points of {folder} are trained again, because its {differs} differs"
    return Start(points=points, note=note)


def _has_result(row: FrozenTrial) -> bool:
    return SAME_AS not in row.user_attrs and row.state in (TrialState.COMPLETE, TrialState.PRUNED)


def _differs(
    plan: Search, other: Search, rows: Sequence[FrozenTrial], same_images: bool
) -> str | None:
    """Name what keeps the results of another search from counting here; None if nothing does."""
    ours, theirs = plan.identity(), other.identity()
    keys = sorted(k for k in {*ours, *theirs} if ours.get(k) != theirs.get(k))
    if keys:
        return keys[0]
    if not same_images:
        return "data set"
    return None if rows[0].params == plan.base_point() else "trial 0, which has no result,"


def _imported(other: Search, folder: RunFolder, row: FrozenTrial) -> FrozenTrial:
    """A finished trial as one of a new study, with where it comes from."""
    origin = {"from": f"{folder} trial {row.number}", "folds": fold_values(other, folder, row)}
    return create_trial(
        state=row.state,
        values=row.values,
        params=row.params,
        distributions=row.distributions,
        user_attrs={POINT: row.params, IMPORTED: row.user_attrs.get(IMPORTED, origin)},
        intermediate_values=row.intermediate_values,
    )


def _points(plan: Search, other: Search, rows: Sequence[FrozenTrial]) -> Iterator[Point]:
    """The complete trials that lie in the space of `plan`, the best first, each point once."""
    complete = [row for row in rows if row.state == TrialState.COMPLETE]
    seen: set[str] = set()
    for row in sorted(complete, key=lambda row: -row.values[0]):
        try:
            values = flatten(other.point(row.params).document())
            point = _inside(plan, values, "")
        except ConfigError:
            continue
        fingerprint = plan.ranges.fingerprint(point)
        if fingerprint not in seen and not refusal(plan.experiment, point):
            seen.add(fingerprint)
            yield point
