"""What a search has shown: its trials, what mattered, and what to look at again."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dmlray.atomic_files import write_json
from dmlray.plans.run_folder import RunFolder

_TOP = 5


@dataclass(frozen=True)
class Row:
    """One trial: `state` is Optuna's, `metrics` are of its last epoch, `values` were searched."""

    number: int
    state: str
    metrics: dict[str, float]
    values: dict[str, Any]
    epochs: int = 0
    seconds: float | None = None
    reason: str | None = None  # why it failed
    same_as: int | None = None  # the trial that had its point before: it was not trained again


@dataclass(frozen=True)
class SearchReport:
    """Of all trials that ended. `front`: no other trial is better in every metric."""

    metrics: tuple[str, ...]
    rows: list[Row]
    best: Row | None
    front: list[Row] = field(default_factory=list)
    importances: dict[str, float] = field(default_factory=dict)  # shares of the variance
    warnings: list[str] = field(default_factory=list)

    @property
    def trained(self) -> list[Row]:
        """The trials that were trained: one for each point."""
        return [row for row in self.rows if row.same_as is None]

    @property
    def failure(self) -> str | None:
        """Why the search is not to be relied on, where more than half of its trials failed."""
        failed = [row for row in self.trained if row.state == "FAIL"]
        if 2 * len(failed) <= len(self.trained):
            return None
        reason, times = Counter(row.reason for row in failed).most_common(1)[0]
        return f"{len(failed)} of {len(self.trained)} trials failed, {times} of them so: {reason}"

    def top(self) -> list[Row]:
        """The best complete trials by the first metric."""
        complete = [row for row in self.trained if row.state == "COMPLETE"]
        return sorted(complete, key=lambda row: -row.metrics[self.metrics[0]])[:_TOP]

    def write(self, folder: RunFolder) -> None:
        """Write `trials.json`, and `pareto.json` where several metrics were sought."""
        document = {
            "metrics": list(self.metrics),
            "best": self.best.number if self.best else None,
            "importances": self.importances,
            "warnings": self.warnings,
            "trials": [asdict(row) for row in self.rows],
        }
        write_json(folder.trials, document)
        if len(self.metrics) > 1:
            write_json(folder.pareto, [asdict(row) for row in self.front])

    def lines(self) -> Iterator[str]:
        """All that a person wants to know at the end."""
        rows, title = (self.front, "Pareto front") if self.front else (self.top(), "best trials")
        yield f"{title}, on validation classes:"
        yield from _table(self.metrics, rows)
        if self.importances:
            yield "what mattered (share of the variance between trials):"
            yield from (f"  {share:5.1%}  {key}" for key, share in self.importances.items())
        failed = sum(row.state == "FAIL" for row in self.trained)
        if failed:
            yield f"{failed} of {len(self.trained)} trials failed; trials.json has the reasons"
        if again := len(self.rows) - len(self.trained):
            yield f"{again} more suggestions were points of earlier trials and not trained again"
        yield from (f"warning: {warning}" for warning in self.warnings)


def short(value: Any) -> str:
    """A value as a person reads it."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _table(metrics: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        scores = "  ".join(f"{name} {short(row.metrics[name])}" for name in metrics)
        yield f"  trial {row.number:<4} {scores}  {_settings(row.values)}"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {short(value)}" for key, value in values.items())
