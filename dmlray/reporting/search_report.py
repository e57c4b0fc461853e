"""What a search has shown: its trials, what mattered, and what to look at again."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, pstdev, stdev
from typing import Any

from dmlray.atomic_files import write_json
from dmlray.evaluation.metrics import label
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
    planned_epochs: int = 0
    folds: list[float] = field(default_factory=list)  # the first metric, of its last epoch
    seconds: float | None = None
    reason: str | None = None  # why it failed
    same_as: int | None = None  # the trial that had its point before: it was not trained again
    imported: str | None = None  # the search that trained it, see `start_from`

    @property
    def spread(self) -> float:
        """Standard deviation of the first metric over folds."""
        return pstdev(self.folds) if self.folds else 0.0


@dataclass(frozen=True)
class Budget:
    """What the trials of a search took, and what those that were stopped early did not take.

    `saved_seconds` assumes that each further epoch takes as long as the ones that were trained.
    """

    epochs: int
    planned_epochs: int
    stopped: int  # trials
    saved_epochs: int
    seconds: float
    saved_seconds: float


@dataclass(frozen=True)
class Gain:
    """The first metric of the best trial above that of trial 0, on the same folds."""

    value: float
    spread: float  # standard deviation of that difference between folds
    better_folds: int
    folds: int

    @property
    def is_clear(self) -> bool:
        """Whether it is more than the spread."""
        return self.value > self.spread


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
        """The trials that were trained, here or in an imported search: one for each point."""
        return [row for row in self.rows if row.same_as is None]

    @property
    def budget(self) -> Budget:
        """What this search itself took."""
        own = [row for row in self.trained if row.imported is None]
        stopped = [row for row in own if row.state == "PRUNED"]
        left = [row.planned_epochs - row.epochs for row in stopped]
        per_epoch = [(row.seconds or 0.0) / max(1, row.epochs) for row in stopped]
        return Budget(
            epochs=sum(row.epochs for row in own),
            planned_epochs=sum(row.planned_epochs for row in own),
            stopped=len(stopped),
            saved_epochs=sum(left),
            seconds=sum(row.seconds or 0.0 for row in own),
            saved_seconds=sum(n * each for n, each in zip(left, per_epoch, strict=True)),
        )

    @property
    def gain(self) -> Gain | None:
        """What the search gained over trial 0; None where they are one or folds are unknown."""
        best, first = self.best, next(iter(self.rows), None)
        if best is None or first is None or best.number == 0 or first.state != "COMPLETE":
            return None
        if len(best.folds) < 2 or len(best.folds) != len(first.folds):
            return None
        # By fold: some folds are harder than others, for all trials alike.
        differences = [a - b for a, b in zip(best.folds, first.folds, strict=True)]
        return Gain(
            value=fmean(differences),
            spread=stdev(differences),
            better_folds=sum(difference > 0 for difference in differences),
            folds=len(differences),
        )

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
        yield from self.verdict()
        yield from (f"warning: {warning}" for warning in self.warnings)

    def verdict(self) -> Iterator[str]:
        """Whether the search has found more than the experiment's own settings have."""
        gain, name = self.gain, self.metrics[0]
        if self.best and self.best.number == 0:
            yield "The best trial is trial 0: the experiment's own settings"
        if gain:
            verb = "more" if gain.is_clear else "not more"
            yield (
                f"{label(name)} is {100 * gain.value:.2f} points above trial 0, the experiment's "
                f"own settings: {verb} than its spread between folds (standard "
                f"deviation {100 * gain.spread:.2f} points); better on "
                f"{gain.better_folds} of {gain.folds} folds"
            )


def short(value: Any) -> str:
    """A value as a person reads it."""
    return f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _table(metrics: Sequence[str], rows: Sequence[Row]) -> Iterator[str]:
    for row in rows:
        scores = "  ".join(f"{name} {short(row.metrics[name])}" for name in metrics)
        yield f"  trial {row.number:<4} {scores}  {_settings(row.values)}"


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {short(value)}" for key, value in values.items())
