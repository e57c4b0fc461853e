"""Compare finished runs: grouped by protocol, ranked within a group, with paired tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dmlray.errors import ConfigError
from dmlray.evaluation.metrics import find, is_known
from dmlray.evaluation.significance import holm
from dmlray.methods import Published
from dmlray.plans.ensemble import read_ensemble
from dmlray.plans.resolve import Resolved, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.paired_tests import (
    ComparedRun,
    PairTester,
    Progress,
    TestedPair,
    finished_run,
)
from dmlray.scores import NO_TEST_CLASSES

DEFAULT_METRIC = "map_at_r"


@dataclass(frozen=True)
class Group:
    """Runs of one protocol, best first, and the test of each pair."""

    protocol: Mapping[str, str]
    runs: list[ComparedRun]
    pairs: list[TestedPair]


@dataclass(frozen=True)
class PublishedRow:
    """Published scores beside a run, and in what the run differs from them."""

    run: ComparedRun
    published: Published
    differs: list[str]


@dataclass(frozen=True)
class Comparison:
    """Groups are never ranked against each other; `published` is None where not asked for."""

    metric: str
    groups: list[Group]
    published: list[PublishedRow] | None

    def differs(self, group: Group) -> list[str]:
        """In what the protocol of a group differs from that of the first one."""
        first = self.groups[0].protocol
        return [
            f"{name} {value}, not {first[name]}"
            for name, value in group.protocol.items()
            if value != first[name]
        ]


def compare_runs(
    runs: Sequence[Path], metric: str | None, published: bool, progress: Progress
) -> Comparison:
    """Group finished runs by protocol; rank and test within each group.

    p-values are corrected for all tests of the comparison (Holm).

    Args:
        runs: Folders of finished runs.
        metric: By which runs are ranked and tested; default map_at_r.
        published: Add the published scores of each run's method on its data set.
        progress: Called with (done, all) runs whose test images are ranked.

    Raises:
        ConfigError: If a run is no run, has no scores or not the metric, or is given twice.
        DataError: If files of a run are damaged.
    """
    compared = [finished_run(RunFolder(path)) for path in runs]
    metric = metric or DEFAULT_METRIC
    _check(compared, metric)
    grouped: dict[tuple[str, ...], list[ComparedRun]] = {}
    for run in compared:
        grouped.setdefault(tuple(run.protocol.values()), []).append(run)
    sign = -1 if find(metric).metric.direction == "min" else 1
    for group in grouped.values():
        group.sort(key=lambda run: -sign * run.scores.metrics[metric])
    tester = PairTester(metric, progress, sum(len(g) for g in grouped.values() if len(g) > 1))
    groups = [Group(g[0].protocol, g, tester.pairs(g)) for g in grouped.values()]
    rows = [row for run in compared if published and (row := published_row(run))]
    return Comparison(metric, _corrected(groups), rows if published else None)


def published_row(run: ComparedRun) -> PublishedRow | None:
    """Published scores of a run's method on its data set; None if there are none."""
    resolved = resolved_plan(run.folder)
    published = resolved.published() if resolved and resolved.experiment.trains else None
    if resolved is None or published is None or not published.scores:
        return None
    differs = [f"settings {', '.join(keys)}"] if (keys := resolved.departures()) else []
    if run.scores.selection != "best_on_test":
        differs.append("the authors chose the epoch on the test classes")
    if run.scores.remarks:
        differs.append("images: see the remarks of the run")
    return PublishedRow(run, published, differs)


def resolved_plan(folder: RunFolder) -> Resolved | None:
    """The experiment of a training or of all trainings of a run; None for a merge."""
    match folder.kind():
        case "experiment":
            return read_experiment(folder.plan("experiment"))
        case "ensemble" | "cross_validation" | "repeat" as kind:
            return read_experiment(read_ensemble(folder.plan(kind)).experiment)
        case _:
            return None


def _check(runs: Sequence[ComparedRun], metric: str) -> None:
    if not runs:
        raise ConfigError("`runs`", ["is empty. Allowed: folders of finished runs"])
    for run in runs:
        if not run.scores.test_classes:
            problem = f"has no scores: there are {NO_TEST_CLASSES}"
            raise ConfigError(run.name, [f"{problem}. Allowed: runs with test classes"])
    known = [m for m in runs[0].scores.metrics if all(m in r.scores.metrics for r in runs)]
    if metric not in known or not is_known(metric):
        problem = f"{metric} is not a score of all runs. Allowed: {', '.join(known) or 'none'}"
        raise ConfigError("`sort`", [problem])
    seen: set[Path] = set()
    for run in runs:
        path = run.folder.path.resolve()
        if path in seen:
            raise ConfigError(run.name, ["is given twice. Allowed: different runs"])
        seen.add(path)


def _corrected(groups: Sequence[Group]) -> list[Group]:
    tested = [pair.difference for group in groups for pair in group.pairs if pair.difference]
    adjusted = iter(holm([difference.p for difference in tested]))
    return [
        replace(
            group,
            pairs=[
                replace(pair, corrected=next(adjusted)) if pair.difference else pair
                for pair in group.pairs
            ],
        )
        for group in groups
    ]
