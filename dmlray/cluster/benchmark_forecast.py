"""Estimate a benchmark from a probe of each cell."""

from dataclasses import dataclass, replace

from dmlray.cluster.forecast import Forecast, of_search
from dmlray.cluster.resources import Cluster
from dmlray.data.dataset import Dataset
from dmlray.plans.benchmark import Cell
from dmlray.reporting.tabular import Tabular

_STARTS = 3  # of processes, one after another: search, tuned and default trainings
_START = 10.0  # measured seconds until a process of Ray has imported torch


@dataclass(frozen=True)
class CellForecast:
    """Estimate of one cell; `disk` in bytes."""

    method: str
    dataset: str
    trainings: int
    seconds: float
    memory: int  # of one process, bytes
    gpu_memory: int
    disk: int


@dataclass(frozen=True)
class BenchmarkForecast(Tabular):
    """Estimate of a benchmark whose cells run `at_once` at a time."""

    cells: list[CellForecast]
    at_once: int

    @property
    def trainings(self) -> int:
        """Of all cells."""
        return sum(cell.trainings for cell in self.cells)

    @property
    def seconds(self) -> float:
        """Of all cells, if nothing slows anything else down."""
        return sum(cell.seconds for cell in self.cells) / self.at_once

    @property
    def disk(self) -> int:
        """Bytes of all cells."""
        return sum(cell.disk for cell in self.cells)

    def records(self) -> list[dict[str, object]]:
        """Return one row per cell."""
        return [vars(cell) for cell in self.cells]


def of_cell(cell: Cell, dataset: Dataset, cluster: Cluster) -> CellForecast:
    """Estimate the search of a cell and the trainings of its winner and its default setting.

    Raises:
        DmlrayError: As the first trial raises.
    """
    trainings = 2 * cell.repeats * cell.members
    settings = cell.search.settings.model_copy(update={"repeats": trainings})
    found: Forecast = of_search(replace(cell.search, settings=settings), dataset, cluster)
    return CellForecast(
        cell.method,
        cell.dataset,
        cell.trainings,
        found.seconds + _STARTS * _START,
        found.memory,
        found.gpu_memory,
        trainings * found.probe.held,  # checkpoints; a search keeps none
    )
