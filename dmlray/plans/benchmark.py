"""A benchmark: methods x data sets; each cell is a search and its repeats, one budget for all."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from dmlray import methods
from dmlray.config_model import ConfigModel
from dmlray.errors import ConfigError
from dmlray.local_paths import local_path
from dmlray.plans.benchmark_entries import MethodEntry, read_entry
from dmlray.plans.benchmark_source import (
    check_names,
    check_sections,
    joined,
    unknown_keys,
)
from dmlray.plans.config_sources import (
    ConfigSource,
    Overrides,
    Source,
    flatten,
    nest,
    read_overrides,
    read_source,
)
from dmlray.plans.plan_files import BENCHMARKS
from dmlray.plans.resolve import write_plan
from dmlray.plans.search import Search, read_search
from dmlray.plans.search_settings import SearchSettings
from dmlray.plans.validation_errors import problems
from dmlray.printable import printable, shortened

_OWN = ("trials", "folds", "repeats", "metric", "use_method_space")  # of SearchSettings
_RESOURCES = (
    "trials_at_once", "folds_at_once", "cpus", "gpus", "time_budget", "failures_in_a_row",
)  # fmt: skip
_METRIC = "map_at_r"


class Budget(ConfigModel):
    """What each cell of a benchmark may spend."""

    trials: int = Field(ge=1, le=1_000_000, description="points of each search")
    folds: int = Field(ge=2, le=1000, description="class-disjoint parts that score each point")
    repeats: int = Field(
        ge=2, le=1000, description="trainings of each winner, and of the setting it began with"
    )
    epochs: int = Field(ge=1, le=10_000, description="passes over the training images")


@dataclass(frozen=True)
class Cell:
    """A method on a data set; `members` above 1 scores ensembles of so many trainings."""

    method: str
    dataset: str
    search: Search
    members: int
    repeats: int

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"{self.method} on {self.dataset}"

    @property
    def trainings(self) -> int:
        """Trainings of the search, of the winner and of the default setting."""
        folds = self.search.experiment.protocol.fold_count
        return self.search.trials * folds + 2 * self.repeats * self.members

    @property
    def fingerprint(self) -> str:
        """Hash of all that its scores depend on; not of resources, nor of where images lie."""
        settings = self.search.settings.model_dump(mode="json", exclude=set(_RESOURCES))
        parts = [self.search.identity(), settings, self.members, self.repeats]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Benchmark:
    """What `dmlray benchmark` does; `content` is the file with the files that it names inside."""

    content: Mapping[str, Any]
    budget: Budget
    cells: tuple[Cell, ...]

    def document(self) -> dict[str, Any]:
        """The plain nested form that a benchmark file holds: legal to read back."""
        return dict(self.content)

    def write(self, path: Path) -> None:
        """Write the plan, enough to run it again."""
        write_plan(path, self.document())


BenchmarkSource = Source | Benchmark


def is_benchmark(plan: ConfigSource) -> bool:
    """Whether these are the keys of a benchmark."""
    return {key.split(".")[0] for key in plan.values} >= {"methods", "datasets"}


def read_benchmark(benchmark: BenchmarkSource | None, overrides: Overrides = ()) -> Benchmark:
    """Read and check a benchmark with all its cells.

    Args:
        benchmark: A file, its content, or a `Benchmark`.
        overrides: Dotted key -> value: keys of the benchmark, or of all its experiments.

    Raises:
        ConfigError: Lists all problems at once.
    """
    document = benchmark.document() if isinstance(benchmark, Benchmark) else benchmark
    file = read_source(document, "file", (BENCHMARKS,))
    source = joined(file, read_overrides(overrides), tuple(Budget.model_fields))
    found = [*check_sections(source)]
    budget = _model(Budget, source, "budget", found)
    settings = _model(SearchSettings, source, "search", found)
    found += unknown_keys(source, "search", set(_OWN), "the budget fixes it")
    datasets = {name: _data(source, name) for name in check_names(source, "datasets", found)}
    found += [problem for name in datasets for problem in _data_problems(source, name)]
    entries = _entries(source, check_names(source, "methods", found), found)
    if found or budget is None or settings is None:
        raise ConfigError(file.name, found)
    reader = _CellReader(source, budget, settings)
    cells = [reader.cell(name, entries[name], d, datasets[d]) for d in datasets for name in entries]
    if reader.problems:
        raise ConfigError(file.name, reader.listed(len(datasets)))
    content = {
        "budget": budget.model_dump(),
        "search": nest(source.below("search").values),
        "set": nest(source.below("set").values),
        "datasets": datasets,
        "methods": {name: entry.document() for name, entry in entries.items()},
    }
    return Benchmark(content, budget, tuple(cell for cell in cells if cell))


def _entries(
    source: ConfigSource, names: Sequence[str], found: list[str]
) -> dict[str, MethodEntry]:
    entries = {}
    for name in names:
        try:
            entries[name] = read_entry(source, name)
        except ConfigError as error:
            where = f"{source.locations.get(f'methods.{name}', '')}  methods.{name}".strip()
            found += [f"{where}: {problem}" for problem in error.problems]
    return entries


class _CellReader:
    """Reads cells and collects what is wrong with them: problem -> data sets, by method."""

    def __init__(self, source: ConfigSource, budget: Budget, settings: SearchSettings) -> None:
        self._source, self._budget = source, budget
        self._settings = settings.model_dump(mode="json", exclude=set(_OWN))
        self._shared = flatten(nest(source.below("set").values))
        self.problems: dict[tuple[str, str], list[str]] = {}

    def cell(
        self, method: str, entry: MethodEntry, dataset: str, data: Mapping[str, Any]
    ) -> Cell | None:
        """Return the cell, None if there is a problem."""
        fixed = {
            **self._shared,
            "budget.epochs": self._budget.epochs,
            **{f"data.{key}": value for key, value in flatten(data).items()},
        }
        repeats = self._budget.repeats
        own = {
            **self._settings,
            "trials": self._budget.trials,
            "folds": self._budget.folds,
            "repeats": repeats if entry.members == 1 else 0,
            "metric": fixed.get("protocol.metric", _METRIC),
        }
        space = {f"space.{key}": fixed[key] for key in fixed if key in _searched(entry, fixed)}
        try:
            experiment = {f"set.{key}": value for key, value in fixed.items()}
            search = read_search(entry.search(), {**own, **experiment, **space})
        except ConfigError as error:
            for problem in error.problems:
                problem = problem.removeprefix("`overrides`  ").removeprefix("`search`  ")
                self.problems.setdefault((method, problem), []).append(dataset)
            return None
        return Cell(method, dataset, search, entry.members, repeats)

    def listed(self, datasets: int) -> list[str]:
        """One line for each problem; it names the data sets unless it is of all."""
        lines = []
        for (method, problem), where in self.problems.items():
            on = f" on {', '.join(where)}" if len(where) < datasets else ""
            line = self._source.locations.get(f"methods.{method}", "")
            lines.append(f"{line}  methods.{method}{on}: {problem}".strip())
        return lines


def _searched(entry: MethodEntry, fixed: Mapping[str, Any]) -> set[str]:
    """Keys that the entry would search; those that are fixed for all cells are not."""
    content = flatten({"method": {}, **entry.content})
    keys = ("set.method.name", "experiment.method.name")
    name = fixed.get("method.name") or next((content[k] for k in keys if k in content), None)
    inherits = content.get("use_method_space", True) and name in methods.names()
    own = {key.removeprefix("space.") for key in content if key.startswith("space.")}
    own |= {key.rpartition(".")[0] for key in own}
    return own | ({*methods.load(str(name)).SPACE} if inherits else set())


def _data(source: ConfigSource, name: str) -> dict[str, Any]:
    """Keys of `data` of a data set; its root does not depend on the working folder."""
    section = source.below(f"datasets.{name}")
    data = nest(
        {**section.values, **({"root": root} if (root := section.texts.get("root")) else {})}
    )
    if isinstance(data.get("root"), str):
        try:
            data["root"] = str(local_path(data["root"]).absolute())
        except ValueError as error:
            raise ConfigError(source.name, [f"datasets.{name}.root: {error}"]) from None
    return data


def _data_problems(source: ConfigSource, name: str) -> Iterator[str]:
    """What is no data set: a word or nothing in its place, or no name of one."""
    key = f"datasets.{name}"
    if keys := source.below(key).values:
        if not keys.get("name"):
            has = ", ".join(map(printable, keys))
            yield f"{key}: has {has} and no name. Allowed: name: NAME, of `dmlray data list`"
        return
    given = source.values.get(key)
    allowed = f"Allowed: {name}: {{name: NAME}}, with the keys of `data`"
    yield f"{source.location(key)}  {key}: {shortened(given)} is not allowed. {allowed}"


def _model(model: type[ConfigModel], source: ConfigSource, section: str, found: list[str]) -> Any:
    """The section as its model; its problems are added to `found`."""
    try:
        return model.model_validate(nest(source.below(section).values))
    except ValidationError as error:
        found += [
            f"{source.location(key) if key in source.locations else ''}  {key}: {text}".strip()
            for key, text in problems(error, model, section)
        ]
        return None
