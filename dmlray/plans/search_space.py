"""The `space` of a search file: which keys, between which ends, and when."""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from dmlray.config_model import ConfigModel
from dmlray.distributions import Choice, Distribution, Float, Int, Space, Value
from dmlray.errors import ConfigError
from dmlray.plans.config_sources import ConfigSource, flatten, overlaid
from dmlray.plans.validation_errors import problems

Condition = Mapping[str, tuple[Value, ...]]  # key -> the values of it that let another be searched
_NEEDED = "Allowed: low and high, or choices"


class Spec(ConfigModel):
    """A range as a file writes it."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] | None = None
    int: bool = False  # the last one, for it hides the type of its name

    def distribution(self, kinds: Collection[Any] = ()) -> Distribution:
        """The range of a setting that takes values of these `kinds`.

        Raises:
            ValueError: If there is none like this.
        """
        if self.choices is not None:
            if len(self.model_fields_set) > 1:
                raise ValueError("choices stands alone")
            return Choice(self.choices)
        if bool in kinds:
            raise ValueError("is true or false and has no range. Allowed: choices: [false, true]")
        whole = int in kinds and float not in kinds
        if whole and "int" in self.model_fields_set and not self.int:
            raise ValueError("is a whole number. Allowed: int: true, or no int at all")
        missing = [end for end in ("low", "high") if getattr(self, end) is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)} missing. {_NEEDED}")
        ends = {"low": self.low, "high": self.high, **({"step": self.step} if self.step else {})}
        if not (self.int or whole):
            return Float(**ends, log=self.log)  # type: ignore[arg-type]
        if any(end != round(end) for end in ends.values() if end is not None):
            raise ValueError("whole numbers have whole low, high and step")
        return Int(**{name: round(end or 0) for name, end in ends.items()}, log=self.log)


@dataclass(frozen=True)
class Ranges:
    """`space` in an order in which `when` speaks only of keys that come before."""

    space: Space
    when: Mapping[str, Condition] = field(default_factory=dict)

    def walk(
        self, base: Mapping[str, Any], ask: Callable[[str, Distribution], Any]
    ) -> dict[str, Any]:
        """Ask for the value of each key whose condition holds; `base` has what is not searched."""
        values: dict[str, Any] = {}
        for key, distribution in self.space.items():
            if holds(self.when.get(key, {}), {**base, **values}):
                values[key] = ask(key, distribution)
        return values

    def fingerprint(self, values: Mapping[str, Any]) -> str:
        """A short hash of a point: equal ones have the same, however their decimals were made."""
        point = {key: self._canonical(key, value) for key, value in sorted(values.items())}
        return hashlib.sha256(json.dumps(point).encode()).hexdigest()[:16]

    def _canonical(self, key: str, value: Any) -> Any:
        range_ = self.space[key]
        if isinstance(range_, Choice):
            return range_.values.index(value)
        if range_.step:
            return round((value - range_.low) / range_.step)
        return float(value)

    def document(self) -> dict[str, Any]:
        """What a file would say."""
        return {key: self._section(key) for key in self.space}

    def _section(self, key: str) -> dict[str, Any]:
        spec = _spec(self.space[key])
        when = {other: list(values) for other, values in self.when.get(key, {}).items()}
        return {**spec, "when": when} if when else spec


def holds(condition: Condition, values: Mapping[str, Any]) -> bool:
    """Whether every key of the condition has one of the values that it asks for."""
    return all(values.get(key) in allowed for key, allowed in condition.items())


def read_ranges(
    source: str,
    origins: ConfigSource,
    inherited: Space,
    kinds: Callable[[str], Collection[Any]] = lambda key: (),
) -> tuple[Ranges, ConfigSource]:
    """The ranges of a `space` section above the `inherited` ones, and the keys that it fixes.

    `kinds` gives the types that a setting takes: a range over a whole number has whole numbers.

    Raises:
        ConfigError: Lists all problems at once.
    """
    sections, fixed = _sections(origins.values)
    space = {key: range_ for key, range_ in inherited.items() if key not in fixed}
    when: dict[str, Condition] = {}
    found: list[str] = []
    for key, section in sections.items():
        location = next(
            (origins.location(k) for k in origins.values if k.startswith(f"{key}.")), ""
        )
        try:
            when[key] = _condition(section.pop("when", None))
            if section or key not in space:
                space[key] = Spec.model_validate(section).distribution(kinds(key))
        except ValidationError as error:
            lines = problems(error, Spec, f"space.{key}")
            found += [f"{location}  {name}: {text}" for name, text in lines]
        except ValueError as error:
            found.append(f"{location}  space.{key}: {error}")
    if not space and not found:
        found.append(
            f"space: is empty. Allowed: keys of the experiment, each with a range. {_NEEDED}"
        )
    if not found:
        space, found = _in_order(space, when)
    if found:
        raise ConfigError(source, found)
    return Ranges(space, {k: c for k, c in when.items() if c}), ConfigSource(
        "space", fixed, origins.locations, origins.texts
    )


def overlaid_ranges(space: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Put one `space` section above another: a range replaces all of that of the same key."""
    sections, _ = _sections(flatten(above))
    return overlaid(space, above, sections)


def _sections(values: Mapping[str, Any]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Ranges by their key, and plain values, which fix a key."""
    parts = {*Spec.model_fields, "when"}
    split = {key: _split(key) for key in values}
    owners = {owner for owner, part, _ in split.values() if part in parts}
    sections: dict[str, dict[str, Any]] = {owner: {} for owner in owners}
    fixed: dict[str, Any] = {}
    for key, (owner, part, other) in split.items():
        if owner not in owners:
            fixed[key] = values[key]
        elif other:
            sections[owner].setdefault("when", {})[other] = values[key]
        else:
            sections[owner][part] = values[key]  # also a misspelt part, reported later
    return dict(sorted(sections.items(), key=lambda item: _first(values, item[0]))), fixed


def _split(key: str) -> tuple[str, str, str]:
    """The key that a line of the section speaks of, the part, and the key that `when` names."""
    owner, when, other = key.partition(".when.")
    return (owner, "when", other) if when else (*key.rpartition(".")[::2], "")


def _first(values: Mapping[str, Any], owner: str) -> int:
    return next(n for n, key in enumerate(values) if key.startswith(f"{owner}."))


def _condition(origins: Any) -> Condition:
    if origins is None:
        return {}
    given = origins if isinstance(origins, dict) else {}
    lists = {key: v if isinstance(v, list) else [v] for key, v in given.items()}
    if not lists or not all(isinstance(v, Value) for values in lists.values() for v in values):
        raise ValueError(
            f"when: {origins!r} is not allowed. Allowed: keys with the value or the list of values "
            "that lets this one be searched"
        )
    return {key: tuple(values) for key, values in lists.items()}


def _in_order(space: Space, when: Mapping[str, Condition]) -> tuple[Space, list[str]]:
    """Keys after those that their conditions name; else the circle that they form."""
    ordered: Space = {}
    waiting = dict(space)
    while waiting:
        ready = [key for key in waiting if not set(when.get(key, {})) & set(waiting)]
        if not ready:
            circle = ", ".join(waiting)
            return space, [f"space: {circle} wait for each other by their `when`"]
        ordered |= {key: waiting.pop(key) for key in ready}
    return ordered, []


def _spec(distribution: Distribution) -> dict[str, Any]:
    if isinstance(distribution, Choice):
        return {"choices": list(distribution.values)}
    spec = {k: v for k, v in asdict(distribution).items() if v is not None}
    return {**spec, "int": True} if isinstance(distribution, Int) else spec


def as_text(ranges: Ranges) -> dict[str, str]:
    """One line for each key: what two searches are compared by."""
    document = ranges.document()
    return {key: json.dumps(spec) for key, spec in document.items()}
