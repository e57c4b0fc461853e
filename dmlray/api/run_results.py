"""What the functions of `dmlray.api` return: rows of a notebook, of pandas, or records."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dmlray.errors import ConfigError
from dmlray.plans.run_folder import RunFolder
from dmlray.printable import shortened
from dmlray.reporting.backbone_table import protocol_lines
from dmlray.reporting.comparison_records import comparison_records
from dmlray.reporting.comparison_tables import FORMATS, sections
from dmlray.reporting.leaderboard_files import records as leaderboard_records
from dmlray.reporting.leaderboard_tables import leaderboard_sections, summary
from dmlray.reporting.search_report import SearchReport
from dmlray.reporting.sections import as_text
from dmlray.reporting.tables import score_rows
from dmlray.reporting.tabular import Tabular
from dmlray.results.backbone_comparison import BackboneComparison
from dmlray.results.comparison import Comparison
from dmlray.results.leaderboard import Leaderboard
from dmlray.scores import Scores, protocol_line


class _Run(NamedTuple):
    scores: Scores
    folder: RunFolder


class RunResult(_Run, Tabular):
    """The `scores` of a run, and the `folder` that holds all of it; unpacks to these two.

    Rows are the training, or each part and the mean, or each ensemble size; metrics are fractions.
    """

    __slots__ = ()

    @property
    def metrics(self) -> dict[str, float]:
        """The scores of the whole run, by name, in [0, 1]."""
        return self.scores.metrics

    def records(self) -> list[dict[str, Any]]:
        """Return one row per stage or member, its scores as columns."""
        rows = score_rows(self.scores)
        names = dict.fromkeys(name for _, metrics in rows for name in metrics)
        return [{"": row, **{name: metrics.get(name) for name in names}} for row, metrics in rows]

    def remarks(self) -> list[str]:
        """Return the protocol of the scores and the run folder."""
        return [protocol_line(self.scores), f"run folder: {self.folder}"]


class _Search(NamedTuple):
    report: SearchReport
    folder: RunFolder


class SearchResult(_Search, Tabular):
    """What a search has found, and the `folder` that holds all of it; unpacks to these two.

    Rows are its trials, with their metrics on validation classes and the values searched.
    """

    __slots__ = ()

    @property
    def best(self) -> Path:
        """The winner: a file of a legal experiment."""
        return self.folder.best

    def records(self) -> list[dict[str, Any]]:
        """Return one row per trained trial: its metrics and its values."""
        trials = self.report.trained
        names = dict.fromkeys(name for trial in trials for name in trial.metrics)
        keys = dict.fromkeys(key for trial in trials for key in trial.values)
        return [
            {"trial": trial.number, "state": trial.state, "epochs": trial.epochs}
            | {name: trial.metrics.get(name) for name in names}
            | {key: trial.values.get(key) for key in keys}
            for trial in trials
        ]

    def remarks(self) -> list[str]:
        """Return the warnings of the search and the file of its winner."""
        return [*self.report.warnings, f"winner: {self.best}"]


class _ZeroShot(NamedTuple):
    comparison: BackboneComparison
    folder: RunFolder


class ZeroShotResult(_ZeroShot, Tabular):
    """A `comparison` of frozen backbones, and the `folder` of its runs; unpacks to these two.

    Rows are the backbones, with their scores and 95 % intervals as fractions.
    """

    __slots__ = ()

    def records(self) -> list[dict[str, Any]]:
        """Return one row per backbone, the scores of validation and test classes as columns."""
        return [
            {
                "backbone": row.backbone,
                "pooling": row.pooling,
                "embedding_size": row.embedding_size,
                "milliseconds": row.milliseconds,
                **{
                    f"{side}/{name}{suffix}": getattr(score, part)
                    for side, scores in (("validation", row.validation), ("test", row.test))
                    for name, score in scores.items()
                    for suffix, part in (("", "value"), ("_low", "low"), ("_high", "high"))
                },
            }
            for row in self.comparison.rows
        ]

    def remarks(self) -> list[str]:
        """Return what the scores depend on and the run folder."""
        return [*protocol_lines(self.comparison), f"run folder: {self.folder}"]


class _Benchmark(NamedTuple):
    leaderboard: Leaderboard
    folder: RunFolder


class BenchmarkResult(_Benchmark, Tabular):
    """The `leaderboard` of a benchmark, and the `folder` that holds all; unpacks to these two.

    Rows are the methods on each data set; metrics are fractions.
    """

    __slots__ = ()

    def records(self) -> list[dict[str, Any]]:
        """Return one row per method and data set."""
        rows = list(leaderboard_records(self.leaderboard))
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in names} for row in rows]

    def lines(self) -> list[str]:
        """Return the tables as text."""
        return as_text(leaderboard_sections(self.leaderboard)).split("\n")

    def remarks(self) -> list[str]:
        """Return the lines below the first table and the run folder."""
        return [*summary(self.leaderboard).lines, f"run folder: {self.folder}"]


@dataclass(frozen=True)
class ComparisonResult(Tabular):
    """A `comparison` of runs.

    Rows are the runs, the differences and, where asked for, published scores; as fractions.
    """

    comparison: Comparison

    def text(self, format: str = "text") -> str:
        """Write it as "text", "md", "latex", "csv" or "html".

        Raises:
            ConfigError: If it is another format.
        """
        if format not in FORMATS:
            problem = f"{shortened(format)} is not allowed. Allowed: {', '.join(FORMATS)}"
            raise ConfigError("`format`", [problem])
        return FORMATS[format](self.comparison)

    def records(self) -> list[dict[str, Any]]:
        """Return a row for each run, difference and published score."""
        rows = list(comparison_records(self.comparison))
        names = dict.fromkeys(name for row in rows for name in row)
        return [{name: row.get(name) for name in names} for row in rows]

    def remarks(self) -> list[str]:
        """Return the lines below the tables."""
        return [line for part in sections(self.comparison) for line in part.lines]
