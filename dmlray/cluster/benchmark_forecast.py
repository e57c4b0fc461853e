"""Estimate a benchmark from a probe of each method."""

import json
from dataclasses import dataclass, replace

from dmlray.cluster.forecast import Forecast, of_search
from dmlray.cluster.resources import Cluster
from dmlray.data.dataset import Dataset
from dmlray.learn.probe import Probe
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


class CellForecaster:
    """Estimates cells; each method is probed once, on the first of its data sets."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._probed: dict[str, Probe] = {}

    def forecast(self, cell: Cell, dataset: Dataset) -> CellForecast:
        """Estimate the search of a cell and the trainings of its winner and its default setting.

        Raises:
            DmlrayError: As the first trial raises.
        """
        trainings = 2 * cell.repeats * cell.members
        settings = cell.search.settings.model_copy(update={"repeats": trainings})
        plan, key = replace(cell.search, settings=settings), _cost_key(cell)
        found: Forecast = of_search(plan, dataset, self._cluster, self._probed.get(key))
        self._probed.setdefault(key, found.probe)
        return CellForecast(
            cell.method,
            cell.dataset,
            cell.trainings,
            found.seconds + _STARTS * _START,
            found.memory,
            found.gpu_memory,
            trainings * found.probe.held,  # checkpoints; a search keeps none
        )


def _cost_key(cell: Cell) -> str:
    """What the cost of a step depends on, besides the number of classes."""
    document = cell.search.experiment.document()
    data = document.pop("data")
    return json.dumps([document, data["batch_size"], data["transform"]["size"]], sort_keys=True)
