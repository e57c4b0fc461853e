"""YAML <-> plans: one grammar, one reader, the last voice wins."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from dmlray import methods
from dmlray.errors import ConfigError
from dmlray.knobs import Knobs
from dmlray.plans.experiment import Experiment, Method
from dmlray.plans.problems import nearest, problems
from dmlray.plans.voices import Voice, flatten, nest, read_file, read_overrides
from dmlray.storage import write_text


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


def read_experiment(path: Path, overrides: Sequence[str] = ()) -> Resolved:
    """Read the experiment file `path` and let `key=value` overrides have the last word.

    Raises:
        ConfigError: Lists all problems at once, with line, nearest spelling and allowed values.
    """
    return resolve(str(path), [read_file(path), read_overrides(overrides)])


def resolve(source: str, voices: Sequence[Voice]) -> Resolved:
    """Merge voices, the last one wins, above what the authors published for the data set."""
    values, said = _merge(voices)
    method, dataset = values.get("method.name"), values.get("data.name", "demo")
    if method is None:
        raise ConfigError(
            source, [f"method.name: is missing. Allowed: {', '.join(methods.names())}"]
        )
    if method not in methods.names():
        raise ConfigError(
            source,
            [
                _line(
                    said,
                    "method.name",
                    f"unknown method {method!r}.{nearest(str(method), methods.names())}",
                )
            ],
        )
    chosen = [value for key, value in values.items() if key.startswith("method.")]
    published = methods.published(method, dataset, chosen)
    if published:
        whispered = Voice(f"published: {published.source}", dict(published.settings))
        values, said = _merge([whispered, *voices])
    return Resolved(_check(source, values, said), {**_defaults(method), **said})


def write_experiment(path: Path, experiment: Experiment, comments: Sequence[str] = ()) -> None:
    """Write a legal experiment file, whole or not at all; comments become its first lines."""
    write_plan(path, experiment.document(), "".join(f"# {comment}\n" for comment in comments))


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


def _merge(voices: Sequence[Voice]) -> tuple[dict[str, Any], dict[str, str]]:
    values: dict[str, Any] = {}
    said: dict[str, str] = {}
    for voice in voices:
        for key, value in voice.values.items():
            values[key] = value
            said[key] = voice.place(key)
    return values, said


def _check(source: str, values: dict[str, Any], said: dict[str, str]) -> Experiment:
    """Validate each section by its model and collect every problem of the document."""
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
    return dict.fromkeys([*keys, *_keys(Experiment, "")], "default")


def _keys(model: type[Knobs], prefix: str) -> Iterator[str]:
    for key, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Knobs):
            if inner is not Method:
                yield from _keys(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
