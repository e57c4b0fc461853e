"""Compare finished runs: grouped by protocol, ranked within a group, with paired tests."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from dmlray.errors import ConfigError, DataError, DmlrayError
from dmlray.evaluation.metrics import RetrievalMetric, find, is_known
from dmlray.evaluation.retrieval import retrieval_values
from dmlray.evaluation.significance import LEVEL, Difference, class_bootstrap, holm, paired_t
from dmlray.methods import Published
from dmlray.plans.ensemble import read_ensemble
from dmlray.plans.resolve import Resolved, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.scored_images import scored_images
from dmlray.scores import Scores, read_scores

DEFAULT_METRIC = "map_at_r"
Progress = Callable[[int, int], None]
_KINDS = ("experiment", "ensemble", "cross_validation", "repeat", "merge")


@dataclass(frozen=True)
class ComparedRun:
    """A finished run and its scores."""

    folder: RunFolder
    scores: Scores

    @property
    def name(self) -> str:
        return str(self.folder)

    @property
    def protocol(self) -> dict[str, str]:
        """What must be equal for two scores to be comparable, by name."""
        scores = self.scores
        return {
            "data set": f"{scores.dataset} {scores.dataset_fingerprint}",
            "training classes": f"{scores.split} {scores.split_fingerprint}".strip(),
            "selection": scores.selection,
            "backbone": scores.backbone,
            "dimension": str(scores.embedding_size),
            "n": str(scores.n),
        }


@dataclass(frozen=True)
class TestedPair:
    """The test of two runs, the better one first; `reason` says why there is none."""

    better: ComparedRun
    worse: ComparedRun
    difference: Difference | None = None
    paired_by: str = ""
    corrected: float = 1.0  # p-value after Holm's correction
    reason: str = ""

    @property
    def significant(self) -> bool:
        return self.difference is not None and self.corrected < LEVEL


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
        metric: By which runs are ranked and tested; default map_at_r.
        published: Add the published scores of each run's method on its data set.

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
    tester = _Tester(metric, progress, sum(len(g) for g in grouped.values() if len(g) > 1))
    groups = [Group(g[0].protocol, g, tester.pairs(g)) for g in grouped.values()]
    rows = [row for run in compared if published and (row := published_row(run))]
    return Comparison(metric, _corrected(groups), rows if published else None)


def published_row(run: ComparedRun) -> PublishedRow | None:
    """Published scores of a run's method on its data set; None if there are none."""
    resolved = resolved_plan(run.folder)
    published = resolved.published() if resolved else None
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


def finished_run(folder: RunFolder) -> ComparedRun:
    """Read the scores of a finished run.

    Raises:
        ConfigError: If it is no run of a kind that has scores, or has none yet.
        DataError: If they are damaged.
    """
    kind = folder.kind()
    if kind not in _KINDS:
        problem = f"is a {kind}, which has no scores on test classes"
        allowed = f"Allowed: a training of {folder.best}, or {folder.repeat}"
        raise ConfigError(str(folder), [f"{problem}. {allowed}"])
    if not folder.scores.exists():
        raise ConfigError(str(folder), ["has no scores yet. Allowed: finished runs"])
    try:
        return ComparedRun(folder, read_scores(folder.scores))
    except DmlrayError as error:
        raise DataError(str(error)) from None


def _check(runs: Sequence[ComparedRun], metric: str) -> None:
    if not runs:
        raise ConfigError("`runs`", ["is empty. Allowed: folders of finished runs"])
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


class _Tester:
    """Tests pairs of runs; the test images of each run are ranked once."""

    def __init__(self, metric: str, progress: Progress, runs: int) -> None:
        self._metric, self._progress, self._runs = metric, progress, runs
        self._sums: dict[Path, dict[str, tuple[float, int]]] = {}

    def pairs(self, runs: Sequence[ComparedRun]) -> list[TestedPair]:
        return [self._pair(better, worse) for better, worse in combinations(runs, 2)]

    def _pair(self, better: ComparedRun, worse: ComparedRun) -> TestedPair:
        try:
            if better.scores.n > 1:
                found, by = _by_seed(better.scores, worse.scores, self._metric), "seed"
            else:
                found, by = self._by_class(better, worse), "test class"
        except (ValueError, ConfigError) as error:
            return TestedPair(better, worse, reason=str(error))
        return TestedPair(better, worse, found, by)

    def _by_class(self, better: ComparedRun, worse: ComparedRun) -> Difference:
        if not isinstance(find(self._metric).metric, RetrievalMetric):
            raise ValueError(f"{self._metric} is no mean over test images")
        first, second = self._class_sums(better), self._class_sums(worse)
        if {name: count for name, (_, count) in first.items()} != {
            name: count for name, (_, count) in second.items()
        }:
            raise DataError(f"{better.name} and {worse.name}: hold embeddings of other classes")
        values = np.array([(*first[name], second[name][0]) for name in sorted(first)])
        return class_bootstrap(values[:, 0], values[:, 2], values[:, 1])

    def _class_sums(self, run: ComparedRun) -> dict[str, tuple[float, int]]:
        """Class -> sum of the metric over its queries, and how many count."""
        path = run.folder.path
        if path not in self._sums:
            self._progress(len(self._sums), self._runs)
            images = scored_images(run.folder, run.scores)
            values = retrieval_values(images.rows, images.task, self._metric).numpy()
            self._sums[path] = _sums(images.names, images.labels, values)
            self._progress(len(self._sums), self._runs)
        return self._sums[path]


def _sums(
    names: Sequence[str], labels: np.ndarray, values: np.ndarray
) -> dict[str, tuple[float, int]]:
    counts = ~np.isnan(values)
    totals = np.bincount(labels[counts], values[counts], len(names))
    queries = np.bincount(labels[counts], minlength=len(names))
    return {
        name: (float(total), int(query))
        for name, total, query in zip(names, totals, queries, strict=True)
        if query
    }


def _by_seed(better: Scores, worse: Scores, metric: str) -> Difference:
    """Test by the seeds, or the folds, that both runs have."""
    first, second = (
        {(part.seed, part.split_fingerprint): part.metrics[metric] for part in scores.parts}
        for scores in (better, worse)
    )
    common = [key for key in first if key in second]
    return paired_t([first[key] for key in common], [second[key] for key in common])


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
