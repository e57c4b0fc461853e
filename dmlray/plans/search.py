"""A search: an experiment, the space around it, and how to walk through that space."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from dmlray import methods
from dmlray.errors import ConfigError
from dmlray.knobs import Choice, Distribution, Float, Int, Knobs, Space
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import override, resolve, write_experiment
from dmlray.plans.problems import problems
from dmlray.plans.voices import Voice, flatten, read_file, read_overrides
from dmlray.storage import write_text

_PARTS = {"low", "high", "log", "step", "int", "choices"}


class Settings(Knobs):
    """How a search walks through its space."""

    trials: int = Field(20, ge=1, le=1_000_000, description="suggestions in all")
    use_method_space: bool = Field(True, description="begin with the method's own SPACE")
    sampler: Literal["tpe", "random"] = Field("tpe", description="who suggests")
    startup_trials: int = Field(10, ge=0, le=10_000, description="random trials before TPE")
    scheduler: Literal["none", "asha"] = Field("none", description="who stops trials early")
    grace_epochs: int = Field(1, ge=1, le=10_000, description="epochs before ASHA may stop")
    reduction_factor: float = Field(3, gt=1, le=100, description="ASHA keeps one in so many")
    trials_at_once: int | None = Field(None, ge=1, description="null: what the cluster holds")
    cpus: float | None = Field(None, gt=0, description="CPU cores of a trial; null: 1")
    gpus: float | None = Field(
        None, ge=0, description="GPU share of each fold; null: 1 where the cluster has GPUs, else 0"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="of the sampler")
    repeats: int = Field(
        0, ge=0, le=1000, description="trainings of the winner with new seeds, for the test classes"
    )


@dataclass(frozen=True)
class Search:
    """What `dmlray tune` does; `space` maps dotted keys of the experiment to distributions."""

    experiment: Experiment
    space: Space
    settings: Settings

    def point(self, values: dict[str, Any]) -> Experiment:
        """The experiment at one point of the space, checked like any file."""
        return override(self.experiment, "trial", values)

    def base_point(self) -> dict[str, Any]:
        """The experiment's own values: the published or default point, which is trial 0."""
        flat = flatten(self.experiment.document())
        return {key: flat[key] for key in self.space}

    def write(self, path: Path) -> None:
        """Write a legal search file."""
        space = {key: _spec(distribution) for key, distribution in self.space.items()}
        document = {
            "experiment": self.experiment.document(),
            "space": space,
            **self.settings.model_dump(mode="json"),
            "use_method_space": False,
        }
        write_text(path, yaml.safe_dump(document, sort_keys=False))

    def write_winner(self, path: Path, number: int, values: dict[str, Any], score: float) -> None:
        """Write trial `number` as a legal experiment that trains on all training classes."""
        protocol = self.experiment.protocol
        how = (
            f"validation: {protocol.metric}, mean of {protocol.folds} {protocol.split} folds, "
            f"best of {self.settings.trials} trials"
        )
        last = {"protocol.selection": "last", "protocol.tuned_by": how}
        comments = [
            f"trial {number} of the study beside this file",
            f"{protocol.metric} {score:.4f} on validation classes ({how})",
            *(f"{key} = {value}" for key, value in values.items()),
        ]
        write_experiment(path, override(self.point(values), path.name, last), comments)


def is_search(path: Path) -> bool:
    """Whether the file is a search; else it is meant as an experiment."""
    return any(key.split(".")[0] in ("experiment", "space") for key in read_file(path).values)


def read_search(path: Path, overrides: Sequence[str] = ()) -> Search:
    """Read a search file; overrides reach its own keys and those of its experiment.

    Raises:
        ConfigError: Lists all problems at once.
    """
    voice, command_line = read_file(path), read_overrides(overrides)
    own, rest = _divided(command_line)
    settings = _settings(str(path), [voice, own])
    base = voice.values.get("experiment")
    inner = read_file(Path(base)) if isinstance(base, str) else voice.below("experiment")
    if base is None and not inner.values:
        raise ConfigError(str(path), ["experiment: is missing. Allowed: a file or a mapping"])
    experiment = resolve(str(path), [inner, voice.below("set"), rest]).experiment
    space, fixed = _space(str(path), voice.below("space"), experiment, settings.use_method_space)
    experiment = resolve(
        str(path), [Voice("experiment", flatten(experiment.document())), fixed]
    ).experiment
    search = Search(experiment, space, settings)
    _check(str(path), search)
    return search


def _divided(command_line: Voice) -> tuple[Voice, Voice]:
    """What is said of the search itself, and of its experiment: the latter's keys have dots."""
    sides: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    for key, value in command_line.values.items():
        sides["." in key][key] = value
    return Voice(command_line.name, sides[0]), Voice(command_line.name, sides[1])


def _settings(source: str, voices: list[Voice]) -> Settings:
    groups = ("experiment", "space", "set")
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for voice in voices:
        for key, value in voice.values.items():
            if key.split(".")[0] not in groups:
                values[key], places[key] = value, voice.place(key)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        lines = [f"{places.get(k, '')}  {k}: {text}" for k, text in problems(error, Settings, "")]
        raise ConfigError(source, lines) from None


def _space(source: str, said: Voice, experiment: Experiment, inherit: bool) -> tuple[Space, Voice]:
    """The distributions, and the keys that the file fixes instead."""
    space: Space = dict(methods.load(experiment.method.name).SPACE) if inherit else {}
    fixed: dict[str, Any] = {}
    specs: dict[str, dict[str, Any]] = {}
    found = []
    for key, value in said.values.items():
        stem, _, part = key.rpartition(".")
        if part in _PARTS:
            specs.setdefault(stem, {})[part] = value
        else:
            fixed[key] = value
            space.pop(key, None)
    for key, spec in specs.items():
        place = next(said.places[k] for k in said.places if k.startswith(f"{key}."))
        try:
            space[key] = _distribution(spec)
        except (ValueError, TypeError, KeyError) as error:
            found.append(f"{place}  space.{key}: {error}")
    if not space and not found:
        found.append(
            "space: is empty. Allowed: keys of the experiment with {low, high} or {choices}"
        )
    if found:
        raise ConfigError(source, found)
    return space, Voice("space", fixed, said.places)


def _distribution(spec: dict[str, Any]) -> Distribution:
    if "choices" in spec:
        if not isinstance(spec["choices"], list) or len(spec) > 1:
            raise ValueError("choices stands alone and is a list")
        return Choice(tuple(spec["choices"]))
    missing = {"low", "high"} - set(spec)
    if missing:
        raise ValueError(
            f"{' and '.join(sorted(missing))} missing. Allowed: low and high, or choices"
        )
    number = int if spec.pop("int", False) else float
    numbers: dict[str, Any] = {k: bool(v) if k == "log" else number(v) for k, v in spec.items()}
    return Int(**numbers) if number is int else Float(**numbers)


def _spec(distribution: Distribution) -> dict[str, Any]:
    if isinstance(distribution, Choice):
        return {"choices": list(distribution.values)}
    spec = {k: v for k, v in asdict(distribution).items() if v is not None}
    return {**spec, "int": True} if isinstance(distribution, Int) else spec


def _check(source: str, search: Search) -> None:
    """Both ends of every range are legal, and trial 0 lies inside."""
    known = flatten(search.experiment.document())
    found = []
    for key, distribution in search.space.items():
        if key not in known:
            found.append(f"space.{key}: unknown key of the experiment")
            continue
        ends = (
            distribution.values
            if isinstance(distribution, Choice)
            else (distribution.low, distribution.high)
        )
        for end in ends:
            try:
                override(search.experiment, "space", {key: end})
            except ConfigError as error:
                found.extend(f"space.{problem}" for problem in error.problems)
        if not found and not distribution.contains(known[key]):
            found.append(
                f"space.{key}: the experiment's own value {known[key]} lies outside. "
                f"Allowed: a range that contains it, for it is trial 0"
            )
    if found:
        raise ConfigError(source, found)
