"""The fields that settings are, by their dotted keys."""

import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from dmlray import methods
from dmlray.config_model import ConfigModel
from dmlray.plans.experiment import Experiment, MethodConfig


def walk(model: type[ConfigModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield each setting of a model and of its groups, without those of a method."""
    for key, field in model.model_fields.items():
        inner = field.annotation
        if not (isinstance(inner, type) and issubclass(inner, ConfigModel)):
            yield f"{prefix}{key}", field
        elif inner is not MethodConfig:
            yield from walk(inner, f"{prefix}{key}.")


def field_of(method: str, key: str) -> FieldInfo | None:
    """Return the field that a dotted key of an experiment names, None if there is none.

    Args:
        method: Whose `Config` the keys below `method.` belong to.
        key: Dotted key, such as `optimizer.lr`.
    """
    section, _, below = key.partition(".")
    model, path = (methods.load(method).Config, below) if section == "method" else (Experiment, key)
    groups: tuple[Any, ...] = (model,)
    field = None
    for name in path.split("."):
        field = next((part.model_fields.get(name) for part in groups if _is_group(part)), None)
        if field is None:
            return None
        groups = _parts(field.annotation)
    return field


def types_of(method: str, key: str) -> frozenset[Any]:
    """Return the parts of a setting's annotation; none where no field is named `key`."""
    field = field_of(method, key)
    return frozenset(_parts(field.annotation)) if field else frozenset()


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
