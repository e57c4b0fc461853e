"""A method of a benchmark: an experiment or a search, from a file or given there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dmlray.errors import ConfigError
from dmlray.local_paths import local_path
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.config_sources import ConfigSource, nest, overlaid, read_file
from dmlray.plans.ensemble import MOST_MEMBERS
from dmlray.plans.plan_files import FOLDERS
from dmlray.plans.search_space import overlaid_ranges
from dmlray.printable import shortened

_KEYS = ("experiment", "space", "set", "use_method_space", "members")
_SEARCH = _KEYS[:-1]


@dataclass(frozen=True)
class MethodEntry:
    """A search without its own budget, all files inside, and the members of its ensembles."""

    content: Mapping[str, Any]
    members: int = 1

    def search(self) -> dict[str, Any]:
        """The search, for the reader of searches."""
        return dict(self.content)

    def document(self) -> dict[str, Any]:
        """The entry of a benchmark file: legal to read back."""
        return {**self.content, "members": self.members}


def read_entry(source: ConfigSource, name: str) -> MethodEntry:
    """Read the entry `name` of `methods`: a file, an experiment, or keys of a search.

    Raises:
        ConfigError: If it is none, or its file cannot be read.
    """
    key = f"methods.{name}"
    if key in source.values and not isinstance(source.values[key], Mapping):
        return MethodEntry(_from_file(source.texts.get(key), source.values[key]))
    content = nest(source.below(key).values)
    if not content:
        raise ConfigError(key, ["is empty. Allowed: a file, an experiment or a search"])
    if not content.keys() & set(_KEYS):
        return MethodEntry({"experiment": content})
    unknown = [
        f"{word}: unknown key.{nearest_or_all(word, _KEYS)}" for word in content.keys() - {*_KEYS}
    ]
    if unknown:
        raise ConfigError(key, sorted(unknown))
    return MethodEntry(_with_experiment(content), _members(key, content.get("members", 1)))


def _with_experiment(content: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a search, where the experiment is no file any more but its content."""
    kept = {word: content[word] for word in _SEARCH if word in content}
    experiment = kept.get("experiment")
    if isinstance(experiment, str):
        base = _from_file(experiment, experiment)
        for word in ("space", "set"):
            for group in (base.get(word), kept.get(word)):
                if group and not isinstance(group, Mapping):
                    problem = f"{word}: {shortened(group)} is not allowed"
                    raise ConfigError("file", [f"{problem}. Allowed: a group of keys"])
        groups = {
            word: overlay(base.get(word) or {}, kept.get(word) or {})
            for word, overlay in (("space", overlaid_ranges), ("set", overlaid))
        }
        kept = {**base, **kept, "experiment": base["experiment"]}
        kept |= {word: group for word, group in groups.items() if group}
    return kept


def _from_file(text: str | None, value: Any) -> dict[str, Any]:
    """The search of a file, or the one around its experiment."""
    if not text:
        problem = f"{shortened(value)} is not allowed"
        raise ConfigError("file", [f"{problem}. Allowed: a file, an experiment or a search"])
    try:
        content = nest(read_file(local_path(text), FOLDERS).values)
    except ValueError as error:
        raise ConfigError("file", [str(error)]) from None
    except ConfigError as error:
        raise ConfigError("file", [f"{error.source}: {text}" for text in error.problems]) from None
    if content.keys() & {"experiment", "space"}:
        return _with_experiment(content)
    return {"experiment": content}


def _members(key: str, value: Any) -> int:
    if type(value) is int and 1 <= value <= MOST_MEMBERS:
        return value
    allowed = f"a whole number in [1, {MOST_MEMBERS}]"
    raise ConfigError(key, [f"members: {shortened(value)} is not allowed. Allowed: {allowed}"])
