"""All settings of a plan as rows: value, origin, meaning and what is allowed."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from pydantic.fields import FieldInfo

from dmlray import methods
from dmlray.distributions import Choice, Distribution
from dmlray.errors import ConfigError
from dmlray.plans.benchmark import is_benchmark
from dmlray.plans.config_sources import Overrides, flatten, read_overrides, read_source
from dmlray.plans.ensemble import (
    MOST_MEMBERS,
    Ensemble,
    ResolvedEnsemble,
    Vary,
    is_ensemble,
    resolve_ensemble,
)
from dmlray.plans.experiment import Experiment
from dmlray.plans.fields import field_of
from dmlray.plans.plan_files import BENCHMARKS, FOLDERS, prefer_experiment
from dmlray.plans.resolve import ExperimentSource, Resolved, read_experiment
from dmlray.plans.search import (
    ResolvedSearch,
    Search,
    SearchSource,
    is_search,
    resolve_search,
)
from dmlray.plans.search_settings import SearchSettings
from dmlray.plans.search_space import Condition
from dmlray.plans.validation_errors import allowed_values
from dmlray.reporting.tabular import Tabular


@dataclass(frozen=True)
class Setting:
    """One value of a plan; `origin` is short: default, published, line 4, command line."""

    key: str
    value: str
    origin: str
    meaning: str
    allowed: str


@dataclass(frozen=True)
class SettingsTable(Tabular):
    """The settings of an experiment, a search or an ensemble.

    `sources` maps short origin labels to the long source; `notes` are the published
    scores of the method on this data set, and what they were reached with otherwise.
    """

    rows: list[Setting]
    sources: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def records(self) -> list[dict[str, str]]:
        """Return one row per setting."""
        return [asdict(row) for row in self.rows]

    def remarks(self) -> list[str]:
        """Return the long names of the sources, then the notes."""
        return [*(f"{label}: {source}" for label, source in self.sources.items()), *self.notes]


def settings_table(
    plan: ExperimentSource | SearchSource | Ensemble, overrides: Overrides = ()
) -> SettingsTable:
    """List the settings of a plan, which its keys show to be one of the three kinds.

    Raises:
        ConfigError: Lists all problems at once.
    """
    if isinstance(plan, Ensemble):
        plan = plan.document()
    if isinstance(plan, Experiment):
        return of_experiment(read_experiment(plan, overrides))
    if isinstance(plan, Search):
        return of_search(resolve_search(plan, overrides))
    if isinstance(plan, str | Path):
        plan = prefer_experiment(Path(plan))
    keys = read_source(plan, "file", (*FOLDERS, BENCHMARKS))
    if is_benchmark(keys):
        problem = "is a benchmark. Allowed: `dmlray plan` for its cells, or the search of a cell"
        raise ConfigError(keys.name, [problem])
    if is_ensemble(keys):
        return of_ensemble(resolve_ensemble(plan, [read_overrides(overrides)]))
    if is_search(keys):
        return of_search(resolve_search(plan, overrides), keys.texts.get("experiment"))
    return of_experiment(read_experiment(plan, overrides))


def of_experiment(resolved: Resolved) -> SettingsTable:
    """List the settings of an experiment."""
    rows = list(_settings(resolved))
    return SettingsTable(rows, _sources(resolved), _notes(resolved))


def of_search(resolved: ResolvedSearch, file: str | None = None) -> SettingsTable:
    """List the settings of a search, its ranges, and the settings of its experiment.

    Args:
        resolved: The search with the sources of its values.
        file: The experiment that the search names, if it does.
    """
    search, origins = resolved.search, resolved.origins
    rows = [
        _row(key, value, origins, SearchSettings.model_fields[key])
        for key, value in search.settings.model_dump(mode="json").items()
    ]
    method = search.experiment.method.name
    for key, range_ in search.ranges.space.items():
        text = range_text(range_, search.ranges.when.get(key, {}))
        rows.append(_row(f"space.{key}", text, origins, field_of(method, key)))
    rows += (_inside(row, "experiment") for row in _settings(resolved.experiment))
    named = {"experiment line": file} if file else {}
    return SettingsTable(rows, named | _sources(resolved.experiment), _notes(resolved.experiment))


def of_ensemble(resolved: ResolvedEnsemble) -> SettingsTable:
    """List the settings of an ensemble and of its experiment; of others, in what they differ."""
    ensemble, (first, *others) = resolved.ensemble, resolved.experiments
    rows = [*_own(ensemble, resolved.origins), *_settings(first)]
    known = {row.key: row.value for row in rows}
    for number, other in enumerate(others, 1):
        differing = (row for row in _settings(other) if known.get(row.key) != row.value)
        rows += (replace(row, key=f"others.{number}.{row.key}") for row in differing)
    return SettingsTable(rows, _sources(first), _notes(first))


def range_text(range_: Distribution, condition: Condition) -> str:
    """Write a range and when it is searched, in words."""
    if isinstance(range_, Choice):
        text = "one of " + ", ".join(map(value_text, range_.values))
    else:
        text = f"{range_.low:g} to {range_.high:g}"
        text += f" in steps of {range_.step:g}" if range_.step not in (None, 1) else ""
        text += ", log" if range_.log else ""
    when = " and ".join(
        f"{key} is {' or '.join(map(value_text, values))}" for key, values in condition.items()
    )
    return f"{text}, when {when}" if when else text


def value_text(value: Any) -> str:
    """Write a value as a file would."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return {None: "null", True: "true", False: "false"}[value] if _is_word(value) else f"{value}"


def _settings(resolved: Resolved) -> Iterator[Setting]:
    method = resolved.experiment.method.name
    for key, value in flatten(resolved.experiment.document()).items():
        yield _row(key, value, resolved.origins, field_of(method, key))


def _inside(row: Setting, section: str) -> Setting:
    """The row as a file would write its key: without the section where the dots show it."""
    return row if "." in row.key else replace(row, key=f"{section}.{row.key}")


def _own(ensemble: Ensemble, origins: dict[str, str]) -> Iterator[Setting]:
    sizes, kinds = f"a whole number in [1, {MOST_MEMBERS}]", f"one of {', '.join(get_args(Vary))}"
    yield Setting("size", f"{ensemble.size}", origins["size"], "number of members", sizes)
    yield Setting("vary", ensemble.vary, origins["vary"], "what differs between members", kinds)


def _row(key: str, value: Any, origins: dict[str, str], field: FieldInfo | None) -> Setting:
    meaning, allowed = (field.description or "", allowed_values(field)) if field else ("", "")
    if key == "method.name":
        meaning, allowed = "how an embedding is learned", f"one of {', '.join(methods.names())}"
    origin = origins.get(key, "default").strip("`")
    return Setting(key, value_text(value), origin, meaning, allowed)


def _is_word(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _sources(resolved: Resolved) -> dict[str, str]:
    published = resolved.published()
    return {"published": published.source} if published else {}


def _notes(resolved: Resolved) -> list[str]:
    published = resolved.published()
    if published is None:
        return []
    scores = ", ".join(f"{name} {100 * score:.1f} %" for name, score in published.scores.items())
    departures = resolved.departures()
    notes = [f"published scores: {scores or 'none'}"]
    return [*notes, f"  reached with other {', '.join(departures)}"] if departures else notes
