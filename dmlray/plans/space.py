"""The `space` of a search file: which keys, between which ends, and when."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from dmlray.errors import ConfigError
from dmlray.knobs import Choice, Distribution, Float, Int, Knobs, Space, Value
from dmlray.plans.problems import problems
from dmlray.plans.voices import Voice

Condition = Mapping[str, tuple[Value, ...]]  # key -> the values of it that let another be searched
_NEEDED = "Allowed: low and high, or choices"


class Spec(Knobs):
    """A range as a file writes it."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Value, ...] | None = None
    int: bool = False  # the last one, for it hides the type of its name

    def distribution(self) -> Distribution:
        """The range.

        Raises:
            ValueError: If there is none like this.
        """
        if self.choices is not None:
            if len(self.model_fields_set) > 1:
                raise ValueError("choices stands alone")
            return Choice(self.choices)
        missing = [end for end in ("low", "high") if getattr(self, end) is None]
        if missing:
            raise ValueError(f"{' and '.join(missing)} missing. {_NEEDED}")
        ends = {"low": self.low, "high": self.high, **({"step": self.step} if self.step else {})}
        if not self.int:
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


def read_ranges(source: str, said: Voice, inherited: Space) -> tuple[Ranges, Voice]:
    """The ranges of a `space` section above the `inherited` ones, and the keys that it fixes.

    Raises:
        ConfigError: Lists all problems at once.
    """
    sections, fixed = _sections(said.values)
    space = {key: range_ for key, range_ in inherited.items() if key not in fixed}
    when: dict[str, Condition] = {}
    found: list[str] = []
    for key, section in sections.items():
        place = next((said.place(k) for k in said.values if k.startswith(f"{key}.")), "")
        try:
            when[key] = _condition(section.pop("when", None))
            if section or key not in space:
                space[key] = Spec.model_validate(section).distribution()
        except ValidationError as error:
            lines = problems(error, Spec, f"space.{key}")
            found += [f"{place}  {name}: {text}" for name, text in lines]
        except ValueError as error:
            found.append(f"{place}  space.{key}: {error}")
    if not space and not found:
        found.append(
            f"space: is empty. Allowed: keys of the experiment, each with a range. {_NEEDED}"
        )
    if not found:
        space, found = _in_order(space, when)
    if found:
        raise ConfigError(source, found)
    return Ranges(space, {k: c for k, c in when.items() if c}), Voice(
        "space", fixed, said.places, said.texts
    )


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
            sections[owner][part] = values[key]  # also a misspelt part, which is told later
    return dict(sorted(sections.items(), key=lambda item: _first(values, item[0]))), fixed


def _split(key: str) -> tuple[str, str, str]:
    """The key that a line of the section speaks of, the part, and the key that `when` names."""
    owner, when, other = key.partition(".when.")
    return (owner, "when", other) if when else (*key.rpartition(".")[::2], "")


def _first(values: Mapping[str, Any], owner: str) -> int:
    return next(n for n, key in enumerate(values) if key.startswith(f"{owner}."))


def _condition(said: Any) -> Condition:
    if said is None:
        return {}
    if not isinstance(said, dict) or not said:
        raise ValueError(
            f"when: {said!r} is not allowed. Allowed: keys with the value or the list of values "
            "that lets this one be searched"
        )
    return {key: tuple(v) if isinstance(v, list) else (v,) for key, v in said.items()}


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
