"""Who says what: YAML files, published settings and the command line, as dotted keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import dmlray
from dmlray.errors import ConfigError
from dmlray.plans.problems import nearest


@dataclass(frozen=True)
class Voice:
    """Dotted keys and the values that somebody gave them; `places` says where, for messages."""

    name: str
    values: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)

    def place(self, key: str) -> str:
        return self.places.get(key, self.name)

    def below(self, prefix: str) -> "Voice":
        """The part of this voice that speaks of `prefix`, with the prefix taken off."""
        dot = prefix + "."
        return Voice(
            self.name,
            {k.removeprefix(dot): v for k, v in self.values.items() if k.startswith(dot)},
            {k.removeprefix(dot): v for k, v in self.places.items() if k.startswith(dot)},
        )


def find(path: Path) -> Path:
    """The file `path` in the current folder, or the one of that name that dmlray ships.

    Raises:
        ConfigError: If there is neither.
    """
    inside = Path(dmlray.__file__).parent
    for candidate in (path, inside / path, inside.parent / path):
        if candidate.is_file() and (candidate == path or path.suffix in (".yaml", ".yml")):
            return candidate
    raise ConfigError(str(path), [f"no such file.{nearest(path.as_posix(), shipped())}"])


def shipped() -> list[str]:
    """Names of the experiments and searches that come with dmlray."""
    inside = Path(dmlray.__file__).parent
    found = {
        f"{folder}/{file.name}"
        for root in (inside, inside.parent)
        for folder in ("experiments", "searches")
        for file in (root / folder).glob("*.yaml")
    }
    return sorted(found)


def read_file(path: Path) -> Voice:
    """Read a YAML mapping into dotted keys that remember their lines.

    Raises:
        ConfigError: If it is no YAML, no mapping, or says a key twice.
    """
    try:
        text = find(path).read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(str(path), [f"line {line}  is not YAML: {error.problem}"]) from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(str(path), [f"is not YAML: {error}"]) from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(str(path), ["must be a mapping of keys to values"])
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    problems = []
    for key, node, line in _leaves(root, ""):
        if key in values:
            problems.append(f"line {line}  {key}: said twice, first on {places[key]}")
        values[key] = yaml.SafeLoader("").construct_object(node, deep=True)
        places[key] = f"line {line}"
    if problems:
        raise ConfigError(str(path), problems)
    return Voice(str(path), values, places)


def read_overrides(words: Sequence[str]) -> Voice:
    """Read `key=value` words; values are YAML, so that lists, null and numbers work.

    Raises:
        ConfigError: If a word has no `=` or its value is no YAML.
    """
    values: dict[str, Any] = {}
    problems = []
    for word in words:
        key, equals, value = word.partition("=")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            equals = ""
        if not equals or not key:
            problems.append(f"{word!r} is not allowed. Allowed: key=value")
    if problems:
        raise ConfigError("command line", problems)
    return Voice("command line", values)


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], most: int = 4) -> list[str]:
    """`key value, not value` for the dotted keys on which two documents disagree."""
    one, other = flatten(ours), flatten(theirs)
    found = [
        f"{key} {one.get(key)}, not {other.get(key)}"
        for key in sorted(one.keys() | other.keys())
        if one.get(key) != other.get(key)
    ]
    more = [f"{len(found) - most} more"] if len(found) > most else []
    return found[:most] + more


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted keys -> nested mapping; a key that is both value and group keeps the last word."""
    document: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, last = key.split(".")
        node = document
        for group in groups:
            inner = node.get(group)
            node[group] = inner if isinstance(inner, dict) else {}
            node = node[group]
        node[last] = value
    return document


def _leaves(node: yaml.MappingNode, prefix: str) -> Iterator[tuple[str, yaml.Node, int]]:
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            yield from _leaves(value_node, f"{key}.")
        else:
            yield key, value_node, key_node.start_mark.line + 1
