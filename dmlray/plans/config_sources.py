"""Configuration sources (file, published settings, command line) as dotted keys with locations."""

from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from dmlray.errors import ConfigError
from dmlray.file_reading import read_bytes, reason
from dmlray.local_paths import path_of
from dmlray.plans.plan_files import FOLDERS, find
from dmlray.plans.yaml_reader import compose, key_of, plain
from dmlray.printable import shortened

Overrides = Mapping[str, Any] | Sequence[str]  # dotted key -> value, or `key=value` words
Source = str | Path | Mapping[str, Any]  # a YAML file, or what one holds
_LARGEST = 1 << 20  # bytes of a file
_MOST_KEYS = 2000  # of a file


@dataclass(frozen=True)
class ConfigSource:
    """Dotted keys and their values from one source.

    `locations` has where a key was set, for messages. `texts` holds scalars as they were written,
    which is what settings of text and paths take: `2024` is a folder there, `photos #2` another.
    """

    name: str
    values: dict[str, Any]
    locations: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def location(self, key: str) -> str:
        """Return where a key was set: the line of its file, or the name of the source."""
        return self.locations.get(key, self.name)

    def below(self, prefix: str) -> "ConfigSource":
        """The keys below `prefix`, with the prefix taken off."""
        dot = prefix + "."
        group = self.values.get(prefix)
        inside = flatten({prefix: group}) if isinstance(group, Mapping) else {}
        parts = ({**inside, **self.values}, self.locations, self.texts)
        cut = ({k.removeprefix(dot): v for k, v in p.items() if k.startswith(dot)} for p in parts)
        return ConfigSource(self.name, *cut)

    def only(self, kept: Callable[[str], bool]) -> "ConfigSource":
        """Without the values of all other keys."""
        return replace(self, values={key: v for key, v in self.values.items() if kept(key)})


def read_source(source: Source | None, name: str, folders: Sequence[str] = FOLDERS) -> ConfigSource:
    """Read a YAML file, or take what one would hold.

    Args:
        source: Path, bare name, mapping or plan.
        name: The parameter that `source` was given as.
        folders: Where a bare name is looked for, see `plan_files.find`.

    Raises:
        ConfigError: If it is neither, or the file cannot be read.
    """
    if isinstance(source, Mapping):
        return read_mapping(source, f"`{name}`")
    if not isinstance(source, str | Path):
        problem = "is missing" if source is None else f"{shortened(source)} is not allowed"
        allowed = "a YAML file, what one holds as a mapping, or a run to `resume`"
        raise ConfigError(f"`{name}`", [f"{problem}. Allowed: {allowed}"])
    return read_file(path_of(name, source), folders)


def read_mapping(content: Mapping[str, Any], name: str) -> ConfigSource:
    """Take nested or dotted keys as they would stand in a file."""
    values = flatten(_plain(content))
    return ConfigSource(name, values, {}, {k: v for k, v in values.items() if isinstance(v, str)})


def _plain(value: Any) -> Any:
    """What YAML has for a value of Python: text for paths, lists for tuples."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.document() if hasattr(value, "document") else value


def read_file(path: Path, folders: Sequence[str] = FOLDERS) -> ConfigSource:
    """Read a YAML mapping into dotted keys that remember their lines.

    Args:
        path: Path or bare name.
        folders: Where a bare name is looked for, see `plan_files.find`.

    Raises:
        ConfigError: If it is no regular file, too large, no mapping of YAML, or has a key twice.
    """
    try:
        text = read_bytes(find(path, folders), _LARGEST).decode("utf-8")
        root = compose(text)
    except UnicodeDecodeError:
        raise ConfigError(str(path), ["is not YAML: not UTF-8"]) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), [reason(error)]) from None
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(str(path), ["must be a mapping of keys to values"])
    source_config = ConfigSource(str(path), {})
    problems = list(_read(root, "", source_config))
    if len(source_config.values) > _MOST_KEYS:
        problems = [f"has {len(source_config.values):,} keys. Allowed: at most {_MOST_KEYS:,}"]
    if problems:
        raise ConfigError(str(path), problems)
    return source_config


def read_overrides(overrides: Overrides) -> ConfigSource:
    """Take a mapping of dotted keys as it is, or read `key=value` words.

    The values of words are YAML, so that lists, null and numbers work. What is no YAML, or has a
    comment, is text: so may folders be named.

    Raises:
        ConfigError: If a word has no `=` or no key, or no YAML where no setting takes text.
    """
    if isinstance(overrides, Mapping):
        return replace(read_mapping({}, "`overrides`"), values=_plain(overrides))
    source_config = ConfigSource("command line", {})
    problems = []
    for word in overrides:
        key, equals, text = word.partition("=")
        why = "" if equals and all(key.split(".")) else ". Allowed: key=value"
        inside: dict[str, str] = {}
        try:
            source_config.values[key], inside = _value(text)
        except ValueError as error:
            source_config.values[key] = text
            if "." not in key:  # settings of text are all in groups
                why = why or f": {str(error).removeprefix('line 1  ')}. Allowed: key=value"
        if why:
            problems.append(f"{shortened(word)} is not allowed{why}")
        source_config.texts.pop(key, None)
        source_config.texts.update({f"{key}.{below}": written for below, written in inside.items()})
        if text not in ("", "null"):
            source_config.texts[key] = text
    if problems:
        raise ConfigError("command line", problems)
    return source_config


def flatten(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mapping -> dotted keys; lists are values."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@lru_cache(maxsize=4096)
def groups_above(key: str) -> tuple[str, ...]:
    """`a.b.c` -> `a`, `a.b`."""
    return tuple(key[:dot] for dot, letter in enumerate(key) if letter == ".")


def is_inside(key: str, groups: Container[str]) -> bool:
    """Whether a dotted key is one of `groups` or lies below one."""
    return any(name in groups for name in (key, *groups_above(key)))


def overlaid(
    group: Mapping[str, Any], above: Mapping[str, Any], replaced: Collection[str] = ()
) -> dict[str, Any]:
    """Put one nested group of keys above another; of equal keys, that of `above` stays.

    Args:
        group: Keys that stay where none stands above them.
        above: Keys that stand above.
        replaced: Further keys of which `group` keeps nothing, nor anything below them.
    """
    new = flatten(above)
    heads = {head for key in new for head in groups_above(key)}  # no value where a group comes
    gone = {*new, *replaced}
    kept = {
        key: value
        for key, value in flatten(group).items()
        if key not in heads and not is_inside(key, gone)
    }
    return nest({**kept, **new})


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
    """Dotted keys -> nested mapping; where a key is a value and a group, the value stays."""
    document: dict[str, Any] = {}
    for key, value in flat.items():
        *groups, last = key.split(".")
        node: Any = document
        for group in groups:
            node = node.setdefault(group, {}) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node[last] = dict(value) if isinstance(value, dict) else value
    return document


def _read(node: yaml.MappingNode, prefix: str, source_config: ConfigSource) -> Iterator[str]:
    """Read `node` into `source_config`; yield its problems."""
    lines: dict[str, int] = {}  # of the keys of this mapping
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        try:
            key = prefix + key_of(key_node)
            if key in lines or key in source_config.values:
                first = source_config.locations.get(key) or f"line {lines[key]}"
                yield f"line {line}  {key}: duplicate key, first on {first}"
            elif isinstance(value_node, yaml.MappingNode) and value_node.value:
                yield from _read(value_node, f"{key}.", source_config)
            else:
                source_config.values[key], source_config.locations[key] = (
                    plain(value_node),
                    f"line {line}",
                )
                if (
                    isinstance(value_node, yaml.ScalarNode)
                    and source_config.values[key] is not None
                ):
                    source_config.texts[key] = value_node.value
            lines.setdefault(key, line)
        except ValueError as error:
            yield str(error)


def _value(text: str) -> tuple[Any, dict[str, str]]:
    """The value that a word means, and the texts of the scalars inside where it is a mapping.

    Raises:
        ValueError: If it is no YAML.
    """
    node = compose(text)
    if node is None or text[node.end_mark.index :].strip():
        return text.strip() or None, {}
    inside = ConfigSource("", {})
    if isinstance(node, yaml.MappingNode):
        list(_read(node, "", inside))
    return plain(node), inside.texts
