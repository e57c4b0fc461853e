"""A search: an experiment, the space around it, and how to walk through that space."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dmlray import methods
from dmlray.distributions import Choice
from dmlray.errors import ConfigError
from dmlray.local_paths import local_path
from dmlray.plans.config_sources import (
    ConfigSource,
    Overrides,
    Source,
    flatten,
    read_file,
    read_overrides,
    read_source,
)
from dmlray.plans.experiment import Experiment
from dmlray.plans.fields import types_of
from dmlray.plans.resolve import (
    ExperimentSource,
    Resolved,
    override,
    read_experiment,
    resolve,
    write_experiment,
    write_plan,
)
from dmlray.plans.search_settings import COSTS, SearchSettings
from dmlray.plans.search_space import Ranges, as_text, read_ranges
from dmlray.plans.space_checks import location_of, sample_points, space_problems
from dmlray.plans.space_points import combinations, corners
from dmlray.plans.validation_errors import problems
from dmlray.printable import shortened

_SECTIONS = ("experiment", "space", "set")
_EPOCHS = "budget.epochs"
_FREE = ("data.root", "loggers", "protocol.extra_metrics")  # change no trial


@dataclass(frozen=True)
class Search:
    """What `dmlray tune` does; `ranges` maps dotted keys of the experiment to distributions."""

    experiment: Experiment
    ranges: Ranges
    settings: SearchSettings

    @property
    def metrics(self) -> tuple[str, ...]:
        """What is sought, the first above all."""
        return (self.experiment.protocol.metric, *(self.settings.metric or ())[1:])

    @property
    def modes(self) -> list[str]:
        """`max` or `min` for each metric."""
        return ["min" if name in COSTS else "max" for name in self.metrics]

    @property
    def stops_early(self) -> bool:
        """Whether a scheduler may stop trials early, which it does for one metric only."""
        return self.settings.scheduler != "none" and len(self.metrics) == 1

    def point(self, values: dict[str, Any]) -> Experiment:
        """The experiment at one point of the space, checked like any file."""
        return override(self.experiment, "trial", values)

    def base(self) -> dict[str, Any]:
        """All values of the experiment, by dotted key."""
        return flatten(self.experiment.document())

    def base_point(self) -> dict[str, Any]:
        """The experiment's own values: the published or default point, which is trial 0."""
        flat = self.base()
        return self.ranges.walk(flat, lambda key, _: flat[key])

    @cached_property
    def size(self) -> float:
        """How many points the space has."""
        return combinations(self.ranges, self.base())

    @property
    def trials(self) -> int:
        """How many points are trained: as many as asked for, but each once."""
        return int(min(self.settings.trials, self.size))

    def sample(self) -> Iterator[dict[str, Any]]:
        """Points that stand for the space: all of a small one."""
        return sample_points(self.ranges, self.base())

    def corners(self) -> Iterator[dict[str, Any]]:
        """The values that may change the shape of things, one key at a time."""
        return corners(self.ranges, self.base())

    def epochs(self, values: dict[str, Any]) -> int:
        """How many epochs the trial of these values has."""
        return int(values.get(_EPOCHS, self.experiment.budget.epochs))

    @property
    def most_epochs(self) -> int:
        """How many epochs a trial has at most."""
        range_ = self.ranges.space.get(_EPOCHS)
        if range_ is None:
            return self.experiment.budget.epochs
        return int(max(map(int, range_.values)) if isinstance(range_, Choice) else range_.high)  # type: ignore[arg-type]

    def write(self, path: Path) -> None:
        """Write a legal search file."""
        write_plan(path, self.document())

    def document(self) -> dict[str, Any]:
        """The plain nested form that a search file holds: legal to read back."""
        settings = self.settings.model_dump(mode="json")
        settings |= {"metric": list(self.metrics), "folds": self.experiment.protocol.fold_count}
        return {
            "experiment": self.experiment.document(),
            "space": self.ranges.document(),
            **settings,
            "use_method_space": False,
        }

    def identity(self) -> dict[str, str]:
        """What may not change while a study goes on; images may move, and trials be added."""
        flat = {key: json.dumps(value) for key, value in self.base().items() if key not in _FREE}
        space = {f"space.{key}": text for key, text in as_text(self.ranges).items()}
        return {"metric": json.dumps(self.metrics), **space, **flat}

    def write_winner(
        self, path: Path, number: int, values: dict[str, Any], score: float, trials: int
    ) -> None:
        """Write trial `number` of `trials` as an experiment that trains on all training classes."""
        protocol = self.experiment.protocol
        how = (
            f"validation: {protocol.metric}, mean of {protocol.fold_count} {protocol.split} folds, "
            f"best of {trials} trials"
        )
        last = {"protocol.selection": "last", "protocol.tuned_by": how}
        comments = [
            f"trial {number} of the study beside this file",
            f"{protocol.metric} {score:.4f} on validation classes ({how})",
            *(f"{key} = {value}" for key, value in values.items()),
        ]
        write_experiment(path, override(self.point(values), path.name, last), comments)


SearchSource = Source | Search


def read_plan(
    plan: SearchSource | ExperimentSource, overrides: Overrides = ()
) -> Search | Resolved:
    """Read a search, or an experiment: what it is shows by its keys.

    Raises:
        ConfigError: Lists all problems at once.
    """
    if isinstance(plan, Experiment):
        return read_experiment(plan, overrides)
    if isinstance(plan, Search) or is_search(read_source(plan, "plan")):
        return read_search(plan, overrides)
    return read_experiment(plan, overrides)


def is_search(plan: ConfigSource) -> bool:
    """Whether these are the keys of a search; else they are meant as an experiment."""
    return any(key.split(".")[0] in ("experiment", "space") for key in plan.values)


@dataclass(frozen=True)
class ResolvedSearch:
    """A checked search, and where its settings and ranges, and its experiment's, are from.

    `origins` has the keys of its own settings, and `space.KEY` for ranges.
    """

    search: Search
    origins: dict[str, str]
    experiment: Resolved


def read_search(search: SearchSource | None, overrides: Overrides = ()) -> Search:
    """Read and check a search.

    Args:
        search: A file, its content, or a `Search`.
        overrides: Key -> value: the search's own settings, and dotted keys of its experiment.

    Raises:
        ConfigError: Lists all problems at once.
    """
    return resolve_search(search, overrides).search


def resolve_search(search: SearchSource | None, overrides: Overrides = ()) -> ResolvedSearch:
    """Read a search as `read_search` does, and keep the origin of each value."""
    document = search.document() if isinstance(search, Search) else search
    file = read_source(document, "search", ("searches",))
    source = file.name
    own, rest = _divided(read_overrides(overrides))
    settings, origins = read_settings(source, [file, own])
    both = _joined(file, own)
    changes = [both.below("set"), _aliases(own), own.below("experiment"), own.below("set"), rest]
    resolved = resolve(source, [_base(source, both), _aliases(file), *changes])
    experiment = resolved.experiment
    space = both.below("space")
    method = methods.load(experiment.method.name)
    inherited = method.SPACE if settings.use_method_space else {}
    kinds = partial(types_of, experiment.method.name)
    ranges, fixed = read_ranges(source, space, inherited, kinds)
    if fixed.values:
        experiment = resolve(
            source, [ConfigSource("", flatten(experiment.document())), fixed]
        ).experiment
    experiment = _with_metrics(source, experiment, settings)
    if found := space_problems(experiment, ranges, settings, space):
        raise ConfigError(source, found)
    origins |= {f"space.{key}": location_of(space, key) for key in ranges.space}
    of_experiment = resolved.origins | {key: space.location(key) for key in fixed.values}
    return ResolvedSearch(
        Search(experiment, ranges, settings), origins, Resolved(experiment, of_experiment)
    )


def _with_metrics(source: str, experiment: Experiment, settings: SearchSettings) -> Experiment:
    """The experiment with all scores among its metrics that the search seeks after the first.

    Raises:
        ConfigError: If the first one, which `protocol.metric` may have changed, is among them.
    """
    protocol, sought = experiment.protocol, (settings.metric or ())[1:]
    if protocol.metric in sought:
        problem = f"metric: {protocol.metric} is sought first (`protocol.metric`) and once more"
        raise ConfigError(source, [f"{problem}. Allowed: different metrics"])
    missing = [name for name in sought if name not in (*COSTS, *protocol.metrics)]
    if not missing:
        return experiment
    return override(
        experiment, source, {"protocol.extra_metrics": [*protocol.extra_metrics, *missing]}
    )


def _divided(command_line: ConfigSource) -> tuple[ConfigSource, ConfigSource]:
    """Locations of the search's own keys, and of its experiment's, which have dots."""

    def inside(key: str) -> bool:
        return "." in key and key.split(".")[0] not in _SECTIONS

    return command_line.only(lambda key: not inside(key)), command_line.only(inside)


def _joined(file: ConfigSource, command_line: ConfigSource) -> ConfigSource:
    """Both, where a value on the command line takes the place of a range of the file."""
    origins = command_line.values
    kept = file.only(lambda key: not any(key.startswith(f"{new}.") for new in origins)).values
    locations = {**file.locations, **dict.fromkeys(origins, command_line.name)}
    texts = {**file.texts, **dict.fromkeys(origins, ""), **command_line.texts}
    return ConfigSource(file.name, {**kept, **origins}, locations, texts)


def _base(source: str, search: ConfigSource) -> ConfigSource:
    """The experiment that is searched around: a file, or a mapping in the search itself."""
    wrong = [key for key in _SECTIONS[1:] if search.values.get(key) and not _is_group(search, key)]
    if wrong:
        problem = "{} is not allowed. Allowed: a group of keys".format
        texts = [
            f"{search.location(k)}  {k}: {problem(shortened(search.values[k]))}" for k in wrong
        ]
        raise ConfigError(source, texts)
    file = search.texts.get("experiment")
    if not file or _is_group(search, "experiment"):
        inner = search.below("experiment")
        if not inner.values:
            raise ConfigError(source, ["experiment: is missing. Allowed: a file or a mapping"])
        return inner
    try:
        base = read_file(local_path(file), ("experiments",))
    except ValueError as error:
        raise ConfigError(source, [f"experiment: {error}"]) from None
    locations = {key: f"experiment {line}" for key, line in base.locations.items()}
    return replace(base, locations=locations)


def _is_group(search: ConfigSource, key: str) -> bool:
    return isinstance(search.values.get(key), dict)


def _aliases(source_config: ConfigSource) -> ConfigSource:
    """`folds` and `metric` of a search, as the keys of its experiment that they are."""
    values: dict[str, Any] = {}
    if (folds := source_config.values.get("folds")) is not None:
        values["protocol.folds"] = folds
    if metric := source_config.values.get("metric"):
        values["protocol.metric"] = metric if isinstance(metric, str) else metric[0]
    locations = {key: source_config.location(key.removeprefix("protocol.")) for key in values}
    return ConfigSource(source_config.name, values, locations)


def read_settings(
    source: str, sources: list[ConfigSource]
) -> tuple[SearchSettings, dict[str, str]]:
    """The search's own settings, and the origin of each."""
    values: dict[str, Any] = {}
    locations: dict[str, str] = {}
    for source_config in sources:
        for key, value in source_config.values.items():
            if key.split(".")[0] not in _SECTIONS:
                path = key == "start_from" and not isinstance(value, list | dict)
                values[key] = source_config.texts.get(key, value) if path else value
                locations[key] = source_config.location(key)
    try:
        origins = dict.fromkeys(SearchSettings.model_fields, "default") | locations
        return SearchSettings.model_validate(values), origins
    except ValidationError as error:
        lines = [
            f"{locations.get(k, '')}  {k}: {text}"
            for k, text in problems(error, SearchSettings, "")
        ]
        raise ConfigError(source, lines) from None
