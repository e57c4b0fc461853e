"""The types that a setting takes, by its dotted key."""

import types
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from dmlray import methods
from dmlray.config_model import ConfigModel
from dmlray.plans.experiment import Experiment


def types_of(method: str, key: str) -> frozenset[Any]:
    """The parts of a setting's annotation; empty where no field is named `key`.

    Args:
        method: Whose `Config` the keys below `method.` belong to.
    """
    section, _, below = key.partition(".")
    model, path = (methods.load(method).Config, below) if section == "method" else (Experiment, key)
    parts: frozenset[Any] = frozenset({model})
    for name in path.split("."):
        field = next((part.model_fields.get(name) for part in parts if _is_group(part)), None)
        if field is None:
            return frozenset()
        parts = frozenset(_parts(field.annotation))
    return parts


@cache
def takes_text(method: str, key: str) -> bool:
    """Whether a setting takes text or a path, and nothing else but null."""
    if key == "method.name" or (not method and key.partition(".")[0] == "method"):
        return key == "method.name"
    parts = types_of(method, key) - {type(None)}
    return bool(parts) and all(part in (str, Path) or _is_words(part) for part in parts)


def _is_words(part: Any) -> bool:
    return get_origin(part) is Literal and all(isinstance(word, str) for word in get_args(part))


def _is_group(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, ConfigModel)


def _parts(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) in (Union, types.UnionType):
        return get_args(annotation)
    return (annotation,)
