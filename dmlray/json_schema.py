"""Schemas of a run's JSON files, checked when they are read."""

import math
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from dmlray.file_reading import read_json

T = TypeVar("T")


def _spread(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"{value:g} is not allowed. Allowed: at least 0, finite")
    return value


Text = Annotated[str, Field(strict=True, max_length=1_000_000)]
Number = Annotated[float, Field(strict=True)]
Spread = Annotated[float, Field(strict=True), AfterValidator(_spread)]
FromZero = Annotated[int, Field(strict=True, ge=0)]
FromOne = Annotated[int, Field(strict=True, ge=1)]
Sha256 = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]


_MESSAGES = {
    "missing": "is missing",
    "unexpected_keyword_argument": "unknown key, as of another version of dmlray",
    "dataclass_type": "holds something else",
    "dict_type": "holds something else",
}


def checked(schema: TypeAdapter[T], content: object) -> T:
    """Validate `content` against `schema`.

    Raises:
        ValueError: If it does not fit; the text names the first problem, in one line.
    """
    try:
        return schema.validate_python(content)
    except ValidationError as error:
        first, *others = error.errors(include_url=False, include_input=False)
        key = ".".join(map(str, first["loc"]))
        more = f" (and {len(others)} more)" if others else ""
        text = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        text = _MESSAGES.get(first["type"], text)
        raise ValueError((f"{key}: {text}" if key else text) + more) from None


def read_checked(path: Path, schema: TypeAdapter[T]) -> T:
    """Read a JSON file that fits `schema`.

    Raises:
        OSError: If there is no such file, it cannot be read, or it is not a regular file.
        ValueError: If it is anything else; the text is the reason, in one line.
    """
    return checked(schema, read_json(path))
