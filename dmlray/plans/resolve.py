"""YAML <-> plans: one grammar, one reader, the last source wins."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dmlray import methods
from dmlray.atomic_files import write_text
from dmlray.config_model import ConfigModel
from dmlray.data.datasets import registry
from dmlray.errors import ConfigError
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.config_sources import (
    ConfigSource,
    Overrides,
    Source,
    flatten,
    groups_above,
    nest,
    read_overrides,
    read_source,
)
from dmlray.plans.experiment import Experiment, MethodConfig
from dmlray.plans.fields import takes_text, walk
from dmlray.plans.validation_errors import problems
from dmlray.printable import printable, shortened

ExperimentSource = Source | Experiment
_FOLDERS = ("experiments",)


@dataclass(frozen=True)
class Resolved:
    """A checked experiment and the origin of each value, by dotted key."""

    experiment: Experiment
    origins: dict[str, str]

    def published(self) -> methods.Published | None:
        """What the authors say of this method on this data set."""
        plan = self.experiment
        chosen = plan.method.config.model_dump().values()
        return methods.published(plan.method.name, plan.data.name, chosen)

    def departures(self) -> list[str]:
        """Keys in which this is not what the published scores were won with."""
        published, ours = self.published(), flatten(self.experiment.document())
        theirs = json.loads(json.dumps(dict(published.settings))) if published else {}
        return [key for key, value in theirs.items() if ours[key] != value]


def read_experiment(experiment: ExperimentSource | None, overrides: Overrides = ()) -> Resolved:
    """Resolve an experiment, with overrides above its own values.

    Raises:
        ConfigError: Lists all problems at once, with line, nearest spelling and allowed values.
    """
    document = experiment.document() if isinstance(experiment, Experiment) else experiment
    file = read_source(document, "experiment", _FOLDERS)
    resolved = resolve(file.name, [file, read_overrides(overrides)])
    name, known = resolved.experiment.data.name, registry.names()
    if name not in known:
        problem = f"unknown data set {shortened(name)}. Allowed: {', '.join(known)}"
        raise ConfigError(file.name, [_line(resolved.origins, "data.name", problem)])
    return resolved


def resolve(source: str, sources: Sequence[ConfigSource]) -> Resolved:
    """Merge sources, the last one wins, above what the authors published for the data set."""
    values, origins = _merge(sources)
    method = values.get("method.name")
    if method is None:
        raise ConfigError(
            source, [f"method.name: is missing. Allowed: {', '.join(methods.names())}"]
        )
    if method not in methods.names():
        known = nearest_or_all(str(method), methods.names())
        problem = f"unknown method {shortened(method)}.{known}"
        raise ConfigError(source, [_line(origins, "method.name", problem)])
    values, origins = _merge(sources, method)
    chosen = [value for key, value in values.items() if key.startswith("method.")]
    dataset = values.get("data.name", "demo")
    published = methods.published(method, dataset, chosen) if isinstance(dataset, str) else None
    if published:
        values, origins = _merge(
            [ConfigSource("published", dict(published.settings)), *sources], method
        )
    return Resolved(_check(source, values, origins), {**_defaults(method), **origins})


def write_experiment(path: Path, experiment: Experiment, comments: Sequence[str] = ()) -> None:
    """Write a legal experiment file, whole or not at all; comments become its first lines."""
    head = "".join(f"# {printable(comment)}\n" for comment in comments)
    write_plan(path, experiment.document(), head)


def write_plan(path: Path, document: dict[str, Any], head: str = "") -> None:
    """Write a plan as YAML, whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, head + yaml.safe_dump(document, sort_keys=False))


def override(experiment: Experiment, name: str, values: dict[str, Any]) -> Experiment:
    """The experiment with some dotted keys changed, checked by the same reader.

    Raises:
        ConfigError: If a key does not exist or a value is not allowed.
    """
    base = ConfigSource("base", flatten(experiment.document()))
    method = values.get("method.name", experiment.method.name)
    if method != experiment.method.name:  # whose own settings and published ones apply
        return resolve(name, [base, ConfigSource(name, values)]).experiment
    return _check(name, *_merge([base, ConfigSource(name, values)], method))


def _merge(
    sources: Sequence[ConfigSource], method: str = ""
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the last value of each key, and where each comes from.

    A mapping given as a value replaces its whole group. Text and paths are taken as they were
    written; those of a method where it is known.
    """
    values: dict[str, Any] = {}
    locations: dict[str, str] = {}
    groups: set[str] = set()  # above the keys of `values`
    for source in sources:
        for key, value in source.values.items():
            if key in groups:
                for below in [known for known in values if known.startswith(f"{key}.")]:
                    del values[below], locations[below]
            leaves = {key: value} if takes_text(method, key) else flatten({key: value})
            for leaf, content in leaves.items():
                literal = leaf in source.texts and takes_text(method, leaf)
                values[leaf] = source.texts[leaf] if literal else content
                locations[leaf] = source.location(key)
                groups.update(groups_above(leaf))
    return values, locations


def _check(source: str, values: dict[str, Any], origins: dict[str, str]) -> Experiment:
    """Validate each section by its model and collect every problem of the document."""
    if mixed := list(_below_values(values)):
        raise ConfigError(source, [_line(origins, key, text) for key, text in mixed])
    document = nest(values)
    section = document.pop("method")
    name = section.pop("name")
    found: list[tuple[str, str]] = []
    config = _validated(methods.load(name).Config, section, "method", found)
    stand_in = MethodConfig(name=name, config=config or ConfigModel())
    experiment = _validated(Experiment, {**document, "method": stand_in}, "", found)
    if found or experiment is None:
        order = {key: number for number, key in enumerate(origins)}
        found.sort(key=lambda problem: order.get(problem[0], len(order)))
        raise ConfigError(source, [_line(origins, key, text) for key, text in found])
    assert isinstance(experiment, Experiment)
    return experiment


def _below_values(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys below one that is no group, and what is wrong with them."""
    for key in values:
        for above in groups_above(key):
            if not isinstance(values.get(above, {}), dict):
                yield key, f"unknown key: {above} is {shortened(values[above])}, no group of keys"


def _validated(
    model: type[ConfigModel], content: Any, prefix: str, found: list[tuple[str, str]]
) -> ConfigModel | None:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found.extend(problems(error, model, prefix))
        return None


def _line(origins: dict[str, str], key: str, text: str) -> str:
    location = origins.get(key) or next(
        (p for k, p in origins.items() if k.startswith(f"{key}.")), ""
    )
    return f"{location}  {key}: {text}".strip() if key else f"{text}"


def _defaults(method: str) -> dict[str, str]:
    keys = [f"method.{key}" for key in methods.load(method).Config.model_fields]
    return dict.fromkeys([*keys, *(key for key, _ in walk(Experiment))], "default")
