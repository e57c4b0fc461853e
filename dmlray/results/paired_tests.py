"""Paired tests of finished runs: by seed for several trainings, by test class for one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from dmlray.errors import ConfigError, DataError, DmlrayError
from dmlray.evaluation.metrics import RetrievalMetric, find
from dmlray.evaluation.retrieval import retrieval_values
from dmlray.evaluation.significance import LEVEL, Difference, class_bootstrap, paired_t
from dmlray.plans.run_folder import RunFolder
from dmlray.results.scored_images import scored_images
from dmlray.scores import Scores, read_scores

Progress = Callable[[int, int], None]
_TOLERANCE = 1e-3  # of a score, by which devices may differ
_KINDS = ("experiment", "ensemble", "cross_validation", "repeat", "merge")


@dataclass(frozen=True)
class ComparedRun:
    """A finished run and its scores."""

    folder: RunFolder
    scores: Scores

    @property
    def name(self) -> str:
        """The folder, relative to the working folder."""
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
        """Whether the corrected p-value is below 0.05."""
        return self.difference is not None and self.corrected < LEVEL


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
        if kind == "benchmark":
            allowed = f"Allowed: {folder.leaderboard('html').name} there, or the runs in its cells"
        raise ConfigError(str(folder), [f"{problem}. {allowed}"])
    if not folder.scores.exists():
        raise ConfigError(str(folder), ["has no scores yet. Allowed: finished runs"])
    try:
        return ComparedRun(folder, read_scores(folder.scores))
    except DmlrayError as error:
        raise DataError(str(error)) from None


class PairTester:
    """Tests pairs of runs; the test images of each run are ranked once."""

    def __init__(self, metric: str, progress: Progress, runs: int) -> None:
        self._metric, self._progress, self._runs = metric, progress, runs
        self._sums: dict[Path, dict[str, tuple[float, int]]] = {}

    def pairs(self, runs: Sequence[ComparedRun]) -> list[TestedPair]:
        """Test each two of the runs, which are given best first."""
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
            task = images.task
            values = retrieval_values(images.rows, task, [self._metric])[self._metric]
            _check_mean(run, self._metric, float(values.nanmean()))
            self._sums[path] = _sums(
                images.names, task.of_queries(task.labels).numpy(), values.numpy()
            )
            self._progress(len(self._sums), self._runs)
        return self._sums[path]


def _check_mean(run: ComparedRun, metric: str, mean: float) -> None:
    """Check that the embeddings give the score: those of older runs have no hash."""
    if abs(mean - run.scores.metrics[metric]) > _TOLERANCE:
        problem = f"its embeddings give {metric} {mean:.4f}, its scores say"
        remedy = "Allowed: runs whose embeddings are those that were scored"
        raise DataError(f"{run.name}: {problem} {run.scores.metrics[metric]:.4f}. {remedy}")


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
