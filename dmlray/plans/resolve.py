"""YAML <-> plans: one grammar, one reader, the last voice wins."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dmlray import methods
from dmlray.atomic_files import write_text
from dmlray.config_model import Knobs
from dmlray.data.datasets import registry
from dmlray.errors import ConfigError
from dmlray.plans.config_sources import (
    Overrides,
    Source,
    Voice,
    flatten,
    nest,
    read_overrides,
    read_source,
)
from dmlray.plans.experiment import Experiment, Method
from dmlray.plans.fields import takes_text, walk
from dmlray.plans.validation_errors import nearest, problems
from dmlray.printable import printable, shortened

ExperimentSource = Source | Experiment


@dataclass(frozen=True)
class Resolved:
    """A checked experiment and, for each dotted key, who said its value."""

    experiment: Experiment
    said: dict[str, str]

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
    file = read_source(document, "experiment")
    resolved = resolve(file.name, [file, read_overrides(overrides)])
    name, known = resolved.experiment.data.name, registry.names()
    if name not in known:
        problem = f"unknown data set {shortened(name)}. Allowed: {', '.join(known)}"
        raise ConfigError(file.name, [_line(resolved.said, "data.name", problem)])
    return resolved


def resolve(source: str, voices: Sequence[Voice]) -> Resolved:
    """Merge voices, the last one wins, above what the authors published for the data set."""
    values, said = _merge(voices)
    method = values.get("method.name")
    if method is None:
        raise ConfigError(
            source, [f"method.name: is missing. Allowed: {', '.join(methods.names())}"]
        )
    if method not in methods.names():
        known = nearest(str(method), methods.names())
        problem = f"unknown method {shortened(method)}.{known}"
        raise ConfigError(source, [_line(said, "method.name", problem)])
    values, said = _merge(voices, method)
    chosen = [value for key, value in values.items() if key.startswith("method.")]
    dataset = values.get("data.name", "demo")
    published = methods.published(method, dataset, chosen) if isinstance(dataset, str) else None
    if published:
        values, said = _merge([Voice("published", dict(published.settings)), *voices], method)
    return Resolved(_check(source, values, said), {**_defaults(method), **said})


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
    base = Voice("base", flatten(experiment.document()))
    return resolve(name, [base, Voice(name, values)]).experiment


def _merge(voices: Sequence[Voice], method: str = "") -> tuple[dict[str, Any], dict[str, str]]:
    """All values, the last of each key, and where they come from.

    A mapping given as a value takes the place of its whole group. Text and paths are taken as they
    were written; those of a method where it is known.
    """
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for voice in voices:
        for key, value in voice.values.items():
            for below in [known for known in values if known.startswith(f"{key}.")]:
                del values[below], places[below]
            leaves = {key: value} if takes_text(method, key) else flatten({key: value})
            for leaf, content in leaves.items():
                literal = leaf in voice.texts and takes_text(method, leaf)
                values[leaf] = voice.texts[leaf] if literal else content
                places[leaf] = voice.place(key)
    return values, places


def _check(source: str, values: dict[str, Any], said: dict[str, str]) -> Experiment:
    """Validate each section by its model and collect every problem of the document."""
    if mixed := list(_below_values(values)):
        raise ConfigError(source, [_line(said, key, text) for key, text in mixed])
    document = nest(values)
    section = document.pop("method")
    name = section.pop("name")
    found: list[tuple[str, str]] = []
    config = _validated(methods.load(name).Config, section, "method", found)
    stand_in = Method(name=name, config=config or Knobs())
    experiment = _validated(Experiment, {**document, "method": stand_in}, "", found)
    if found or experiment is None:
        order = {key: number for number, key in enumerate(said)}
        found.sort(key=lambda problem: order.get(problem[0], len(order)))
        raise ConfigError(source, [_line(said, key, text) for key, text in found])
    assert isinstance(experiment, Experiment)
    return experiment


def _below_values(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Keys below one that is no group, and what is wrong with them."""
    for key in values:
        for dot in (place for place, letter in enumerate(key) if letter == "."):
            above = key[:dot]
            if not isinstance(values.get(above, {}), dict):
                yield key, f"unknown key: {above} is {shortened(values[above])}, no group of keys"


def _validated(
    model: type[Knobs], content: Any, prefix: str, found: list[tuple[str, str]]
) -> Knobs | None:
    try:
        return model.model_validate(content)
    except ValidationError as error:
        found.extend(problems(error, model, prefix))
        return None


def _line(said: dict[str, str], key: str, text: str) -> str:
    place = said.get(key) or next((p for k, p in said.items() if k.startswith(f"{key}.")), "")
    return f"{place}  {key}: {text}".strip() if key else f"{text}"


def _defaults(method: str) -> dict[str, str]:
    keys = [f"method.{key}" for key in methods.load(method).Config.model_fields]
    return dict.fromkeys([*keys, *(key for key, _ in walk(Experiment))], "default")
