"""A merge: finished runs whose embeddings are laid side by side, and how."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from dmlray.errors import ConfigError
from dmlray.plans.files import write_plan
from dmlray.plans.voices import read_file


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
        if not runs:
            raise ConfigError("merge", ["names no run. Allowed: folders of finished runs"])
        twice = next((run for run in runs if runs.count(run) > 1), None)
        if twice:
            raise ConfigError(str(twice), ["is named twice. Allowed: once, with --weights"])
        wrong = len(self.weights) not in (0, len(runs))
        if wrong or not all(isfinite(weight) and weight > 0 for weight in self.weights):
            said, allowed = ",".join(map(str, self.weights)), f"{len(runs)} numbers above 0"
            raise ConfigError("--weights", [f"{said} is not allowed. Allowed: {allowed}"])
        if self.pca is not None and self.pca < 1:
            raise ConfigError("--pca", [f"{self.pca} is not allowed. Allowed: at least 1"])

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


def read_merge(path: Path) -> Merge:
    """Read the plan of a run folder.

    Raises:
        ConfigError: If it is damaged.
    """
    said = dict(read_file(path).values)
    try:
        runs = tuple(map(Path, said.pop("runs")))
        return Merge(runs, tuple(map(float, said.pop("weights"))), **said)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(str(path), [f"is no plan of a merge: {error!r}"]) from None


def read_weights(text: str | None) -> Sequence[float]:
    """Numbers with commas between them.

    Raises:
        ConfigError: If they are none.
    """
    try:
        return [float(word) for word in text.split(",")] if text else []
    except ValueError:
        problem = f"{text!r} is not allowed. Allowed: numbers with commas, such as 1,0.5"
        raise ConfigError("--weights", [problem]) from None
