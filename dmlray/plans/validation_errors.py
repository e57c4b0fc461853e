"""From a pydantic error to the grammar of ours: where, what, what is allowed."""

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from dmlray.config_model import ConfigModel
from dmlray.nearest_names import nearest_or_all
from dmlray.printable import shortened

_NUMBERS = {int: "a whole number", float: "a number"}


def problems(
    error: ValidationError, model: type[ConfigModel], prefix: str
) -> Iterator[tuple[str, str]]:
    """Yield (dotted key, sentence) for each thing that `model` refused below `prefix`."""
    for item in error.errors():
        path = _without_unions(model, item["loc"])
        key = ".".join(filter(None, (prefix, *path)))
        owner, field = _find(model, path)
        if item["type"] == "extra_forbidden":
            yield key, f"unknown key.{nearest_or_all(path[-1], owner.model_fields)}"
        elif item["type"] == "missing":
            yield key, "is missing"
        elif item["type"] == "value_error":
            yield key, item["msg"].removeprefix("Value error, ")
        else:
            allowed = f" Allowed: {allowed_values(field)}." if field else ""
            yield key, f"{shortened(item['input'])} is not allowed.{allowed}"


def allowed_values(field: FieldInfo) -> str:
    """Describe the values that a setting takes."""
    kinds = [_kind(part, field) for part in _parts(field.annotation)]
    return " or ".join(kinds)


def _parts(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return list(get_args(annotation))
    return [annotation]


def _kind(part: Any, field: FieldInfo) -> str:
    if part is type(None):
        return "null"
    if get_origin(part) is Literal:
        return "one of " + ", ".join(map(str, get_args(part)))
    if get_origin(part) in (tuple, list):
        return "a list of " + _NUMBERS.get(get_args(part)[0], "value").split(" ", 1)[-1] + "s"
    if part in _NUMBERS:
        return _NUMBERS[part] + _range(field)
    if get_origin(part) is dict:
        return "a group of keys"
    names = {bool: "true or false", str: "text"}
    if isinstance(part, type) and issubclass(part, BaseModel):
        return "a group of keys: " + ", ".join(part.model_fields)
    return names.get(part, "a path")


def _range(field: FieldInfo) -> str:
    low, high = "(-inf", "inf)"
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge):
            low = f"[{bound.ge:g}" if isinstance(bound.ge, float) else f"[{bound.ge}"
        elif isinstance(bound, annotated_types.Gt):
            low = f"({bound.gt}"
        elif isinstance(bound, annotated_types.Le):
            high = f"{bound.le}]"
        elif isinstance(bound, annotated_types.Lt):
            high = f"{bound.lt})"
    return "" if (low, high) == ("(-inf", "inf)") else f" in {low}, {high}"


def _without_unions(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, ...]:
    """Only the keys of a location: pydantic also names union branches and list positions."""
    path: list[str] = []
    current: type[BaseModel] | None = model
    for part in map(str, location):
        if current is None:
            break
        path.append(part)
        field = current.model_fields.get(part)
        current = _model_of(field) if field else None
    return tuple(path)


def _find(
    model: type[BaseModel], path: tuple[str, ...]
) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model that owns the last key of `path`, and its field where there is one."""
    for part in path[:-1]:
        inner = _model_of(model.model_fields[part])
        if inner is None:
            break
        model = inner
    return model, model.model_fields.get(path[-1]) if path else None


def _model_of(field: FieldInfo) -> type[BaseModel] | None:
    for part in _parts(field.annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None
