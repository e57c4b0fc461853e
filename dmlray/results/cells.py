"""The result of a benchmark's cell: one JSON file, enough for the leaderboard."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter

from dmlray.atomic_files import write_json
from dmlray.errors import DataError
from dmlray.file_reading import read_json, reason
from dmlray.json_schema import FromOne, FromZero, Sha256, Spread, Text, read_checked
from dmlray.plans.run_folder import RunFolder
from dmlray.results.averages import average
from dmlray.scores import Metrics, ScorePart, Scores


@dataclass(frozen=True)
class CellResult:
    """Scores of a method on a data set, of its tuned and of its default setting.

    Attributes:
        plan: Fingerprint of the cell's plan.
        failure: Why there are no scores; empty if there are.
        members: Trainings of each scored ensemble; 1 for single trainings.
        budget: Trials, folds, repeats and epochs.
        validation: Scores on held-out training classes: of the default setting and the winner.
        trials: Points of the search, and how many of them failed.
        won: Searched settings of the winner.
        seconds: Device seconds of the search, the tuned and the default trainings.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    method: Text
    dataset: Text
    plan: Sha256
    metric: Text
    budget: dict[Text, FromOne]
    members: FromOne = 1
    failure: Text = ""
    tuned: Scores | None = None
    default: Scores | None = None
    validation: Metrics = field(default_factory=dict)
    trials: dict[Text, FromZero] = field(default_factory=dict)
    won: dict[Text, Any] = field(default_factory=dict)
    seconds: dict[Text, Spread] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it into a folder of results, whole or not at all."""
        folder.mkdir(exist_ok=True)
        write_json(file_of(folder, self.dataset, self.method), asdict(self))


_CELL = TypeAdapter(CellResult)


def file_of(folder: Path, dataset: str, method: str) -> Path:
    """Return the file of a cell; its names have no dots."""
    return folder / f"{dataset}.{method}.json"


def read_cell(path: Path) -> CellResult:
    """Read a cell's result.

    Raises:
        DataError: If it is missing or damaged.
    """
    try:
        return read_checked(path, _CELL)
    except (OSError, ValueError) as error:
        remedy = "delete it and resume the benchmark to run the cell again"
        raise DataError(f"{path}: is damaged ({reason(error)}); {remedy}") from None


def averaged(scores: Sequence[Scores]) -> Scores:
    """Combine ensembles of several seeds into one score, as `repeat` combines trainings.

    Raises:
        DataError: If they were not scored on the same images.
    """
    first = scores[0]
    if len({(each.dataset_fingerprint, each.test_images) for each in scores}) > 1:
        raise DataError(f"{first.dataset}: its ensembles were scored on different images")
    parts = [ScorePart(s.seed, first.split_fingerprint, 1, s.metrics) for s in scores]
    return average(replace(first, curve=[], embeddings_sha256=None), parts)


def device_seconds(folders: Sequence[RunFolder]) -> float:
    """Sum the device seconds of finished trainings; of older ones they are not known."""
    total = 0.0
    for folder in folders:
        try:
            spent: Mapping[str, Any] = read_json(folder.cost)
            total += float(spent["seconds"]) * int(spent["devices"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return round(total, 1)
