"""Scores of frozen backbones side by side, and the file that keeps them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from dmlray.atomic_files import write_json
from dmlray.errors import ConfigError, DataError
from dmlray.evaluation.significance import RESAMPLES
from dmlray.file_reading import reason
from dmlray.json_schema import FromOne, FromZero, Number, Spread, Text, read_checked

INTERVAL = f"95 %, bootstrap over classes, {RESAMPLES:,} resamples"


@dataclass(frozen=True)
class IntervalScore:
    """A mean over queries and its interval; None where only one class has queries."""

    value: Number
    low: Number | None
    high: Number | None


@dataclass(frozen=True)
class ScoredClasses:
    """Which classes are scored, in words, and how many."""

    which: Text
    classes: FromZero
    images: FromZero


@dataclass(frozen=True)
class BackboneRow:
    """One backbone with one pooling; `run` is the folder of its run of zero epochs.

    Attributes:
        milliseconds: Of one image in the network alone, in a batch, on `device`.
        validation: Scores by metric, on training classes, on which nothing was trained.
        test: The same on the test classes; empty where there are none.
    """

    run: Text
    backbone: Text
    pooling: Text
    embedding_size: FromOne
    milliseconds: Spread
    device: Text
    validation: dict[Text, IntervalScore]
    test: dict[Text, IntervalScore]
    protocol: Text


@dataclass(frozen=True)
class BackboneComparison:
    """Rows of one data set; `metric` is that by which the best one is chosen on validation."""

    dataset: Text
    dataset_fingerprint: Text
    metric: Text
    validation: ScoredClasses
    test: ScoredClasses
    rows: list[BackboneRow]
    interval: Text = INTERVAL
    format: Annotated[int, Field(strict=True, ge=1, le=1)] = 1

    @property
    def best(self) -> BackboneRow:
        """The row with the best score on the validation classes; of equal ones the first."""
        return max(self.rows, key=lambda row: row.validation[self.metric].value)

    def by_run(self) -> Mapping[str, BackboneRow]:
        """The rows by the name of their run."""
        return {row.run: row for row in self.rows}

    def with_row(self, row: BackboneRow) -> "BackboneComparison":
        """Add a row, or put it in the place of an older one."""
        return replace(self, rows=[*({**self.by_run(), row.run: row}).values()])

    def write(self, path: Path) -> None:
        """Write all of it as JSON, whole or not at all."""
        write_json(path, asdict(self))


_COMPARISON = TypeAdapter(BackboneComparison)


def read_comparison(path: Path) -> BackboneComparison:
    """Read what `BackboneComparison.write` wrote.

    Raises:
        ConfigError: If there is no such file.
        DataError: If it is damaged.
    """
    try:
        return read_checked(path, _COMPARISON)
    except FileNotFoundError:
        problem = "exists and is no comparison of backbones. Allowed: a new folder (`out`)"
        raise ConfigError(str(path.parent), [problem]) from None
    except (OSError, ValueError) as error:
        remedy = f"delete {path.parent} and compare again"
        raise DataError(f"{path}: is damaged ({reason(error)}); {remedy}") from None
