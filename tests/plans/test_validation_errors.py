"""What pydantic refuses, in one sentence each: the key, the problem, what is allowed."""

from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from dmlray.config_model import ConfigModel
from dmlray.plans.validation_errors import problems


class Inner(ConfigModel):
    rate: float = Field(0.1, gt=0, le=1)
    steps: int = Field(5, ge=0)


class Model(ConfigModel):
    kind: Literal["sum", "mean"] = "sum"
    size: int | None = Field(None, ge=1)
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()
    nesterov: bool = False
    root: Path | None = None
    name: str

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name != "cub":
            raise ValueError("unknown data set. Allowed: cub")
        return name


@pytest.mark.parametrize(
    ("given", "key", "sentence"),
    [
        ({"kind": "max"}, "kind", "'max' is not allowed. Allowed: one of sum, mean."),
        ({"size": 0}, "size", "0 is not allowed. Allowed: a whole number in [1, inf) or null."),
        ({"size": "x"}, "size", "'x' is not allowed. Allowed: a whole number in [1, inf) or null."),
        (
            {"inner": {"rate": 0}},
            "inner.rate",
            "0 is not allowed. Allowed: a number in (0, 1].",
        ),
        (
            {"inner": 3},
            "inner",
            "3 is not allowed. Allowed: a group of keys: rate, steps.",
        ),
        (
            {"inner": {"stps": 3}},
            "inner.stps",
            "unknown key. Did you mean steps?",
        ),
        (
            {"sizes": [1, "x"]},
            "sizes",
            "'x' is not allowed. Allowed: a list of whole numbers.",
        ),
        (
            {"nesterov": "maybe"},
            "nesterov",
            "'maybe' is not allowed. Allowed: true or false.",
        ),
        ({"root": 3}, "root", "3 is not allowed. Allowed: a path or null."),
        ({"name": "cars"}, "name", "unknown data set. Allowed: cub"),
        ({"name": None}, "name", "None is not allowed. Allowed: text."),
    ],
)
def test_a_refused_value_is_one_sentence(given: dict[str, Any], key: str, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"name": "cub", **given})
    assert list(problems(caught.value, Model, "data")) == [(f"data.{key}", sentence)]


def test_what_is_missing_is_named_beside_all_other_problems() -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate({"kind": "max", "inner": {"steps": -1}})
    found = dict(problems(caught.value, Model, ""))
    assert found["name"] == "is missing"
    assert set(found) == {"name", "kind", "inner.steps"}
