"""An ensemble: an experiment, how many members, and what differs between them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from dmlray.errors import ConfigError
from dmlray.plans.experiment import Experiment
from dmlray.plans.files import override, resolve
from dmlray.plans.voices import Voice, read_file
from dmlray.storage import write_text

Vary = Literal["meta_classes", "seed"]
_SEED_STRIDE = 100_003  # prime: seeds of two ensembles meet only after so many members


@dataclass(frozen=True)
class Ensemble:
    """What `dmlray ensemble` does. `meta_classes` also deals classes anew for each member."""

    experiment: Experiment
    size: int
    vary: Vary

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(
                "--ensemble-size", [f"{self.size} is not allowed. Allowed: at least 1"]
            )
        if self.vary not in get_args(Vary):
            allowed = ", ".join(get_args(Vary))
            raise ConfigError("--vary", [f"{self.vary!r} is not allowed. Allowed: {allowed}"])
        deals = hasattr(self.experiment.method.config, "draw_seed")
        if self.vary == "meta_classes" and not deals:
            name = self.experiment.method.name
            raise ConfigError("--vary", [f"{name} has no meta-classes. Allowed: seed"])

    def member(self, index: int) -> Experiment:
        """Member `index`, a function of (seed, index) alone: the same on 1 and on 8 devices."""
        seed = (self.experiment.seed * _SEED_STRIDE + index) % 2**31
        changes: dict[str, Any] = {"seed": seed}
        if self.vary == "meta_classes":
            changes["method.draw_seed"] = seed
        return override(self.experiment, f"member {index}", changes)

    def write(self, path: Path) -> None:
        """Write the plan, enough to run it again."""
        document = {"size": self.size, "vary": self.vary, "experiment": self.experiment.document()}
        write_text(path, yaml.safe_dump(document, sort_keys=False))


def default_vary(experiment: Experiment) -> Vary:
    """Meta-classes where the method deals them, else seeds."""
    return "meta_classes" if hasattr(experiment.method.config, "draw_seed") else "seed"


def read_ensemble(path: Path, overrides: Sequence[Voice] = ()) -> Ensemble:
    """Read the plan of a run folder."""
    voice = read_file(path)
    experiment = resolve(str(path), [voice.below("experiment"), *overrides]).experiment
    return Ensemble(experiment, int(voice.values["size"]), voice.values["vary"])
