"""A merge: finished runs whose embeddings are laid side by side, and how."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from dmlray.config_model import ConfigModel
from dmlray.errors import ConfigError
from dmlray.plans.config_sources import read_file
from dmlray.plans.resolve import write_plan
from dmlray.plans.validation_errors import problems


@dataclass(frozen=True)
class Merge:
    """What `dmlray merge` does.

    `weights` are factors of the cosines of each run's members, by default 1. `pca` keeps so many
    dimensions and `whiten` gives each the same variance, both as the training classes say.
    `greedy` takes members only as long as they help on validation classes.
    """

    runs: tuple[Path, ...]
    weights: tuple[float, ...] = ()
    pca: int | None = None
    whiten: bool = False
    greedy: bool = False

    def __post_init__(self) -> None:
        runs = tuple(run.absolute() for run in self.runs)
        object.__setattr__(self, "runs", runs)
        locations = [os.path.realpath(run) for run in runs]
        if not runs:
            raise ConfigError("merge", ["names no run. Allowed: folders of finished runs"])
        twice = next(
            (
                r
                for r, location in zip(runs, locations, strict=True)
                if locations.count(location) > 1
            ),
            None,
        )
        if twice:
            raise ConfigError(str(twice), ["is named twice. Allowed: once, with `weights`"])
        wrong = len(self.weights) not in (0, len(runs))
        if wrong or not all(isfinite(weight) and weight > 0 for weight in self.weights):
            origins, allowed = ",".join(map(str, self.weights)), f"{len(runs)} numbers above 0"
            raise ConfigError("`weights`", [f"{origins} is not allowed. Allowed: {allowed}"])
        if self.pca is not None and self.pca < 1:
            raise ConfigError("`pca`", [f"{self.pca} is not allowed. Allowed: at least 1"])

    @property
    def projects(self) -> bool:
        """Whether embeddings are more than laid side by side."""
        return self.whiten or self.pca is not None

    def write(self, path: Path) -> None:
        """Write the plan, enough to run it again."""
        document: dict[str, Any] = {
            "runs": [str(run) for run in self.runs],
            "weights": list(self.weights),
            "pca": self.pca,
            "whiten": self.whiten,
            "greedy": self.greedy,
        }
        write_plan(path, document)


class _Document(ConfigModel):
    """What `merge.yaml` holds."""

    model_config = ConfigDict(strict=True)

    runs: list[Annotated[str, Field(pattern=r"^[^\x00]+$")]] = Field(
        min_length=1, max_length=10_000
    )
    weights: list[float] = Field(default_factory=list)
    pca: int | None = None
    whiten: bool = False
    greedy: bool = False


def read_merge(path: Path) -> Merge:
    """Read the plan of a run folder.

    Raises:
        ConfigError: If it is damaged.
    """
    try:
        document = _Document.model_validate(read_file(path).values)
        return Merge(
            tuple(map(Path, document.runs)),
            tuple(document.weights),
            document.pca,
            document.whiten,
            document.greedy,
        )
    except ValidationError as error:
        found = problems(error, _Document, "")
        sentences = [f"is no plan of a merge: {key}: {text}" for key, text in found]
        raise ConfigError(str(path), sentences) from None
    except ConfigError as error:  # of a value, which names an option
        if error.source == str(path):
            raise
        raise ConfigError(
            str(path), [f"{error.source}: {text}" for text in error.problems]
        ) from None


def read_weights(text: str | None) -> Sequence[float]:
    """Numbers with commas between them.

    Raises:
        ConfigError: If they are none.
    """
    try:
        return [float(word) for word in text.split(",")] if text else []
    except ValueError:
        problem = f"{text!r} is not allowed. Allowed: numbers with commas, such as 1,0.5"
        raise ConfigError("`weights`", [problem]) from None
