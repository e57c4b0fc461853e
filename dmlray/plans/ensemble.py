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

Vary = Literal["meta_classes", "seed", "fold", "new_seed"]
_SEED_STRIDE = 100_003  # prime: seeds of two ensembles meet only after so many members


@dataclass(frozen=True)
class Ensemble:
    """Trainings of one setting, which `dmlray ensemble` merges, `cv` and `repeat` average.

    `meta_classes` also deals classes anew for each member; `fold` lets each hold out classes of
    its own; `new_seed` counts on from the experiment's seed, with which a search may have chosen
    the setting, and leaves that one out.
    """

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
        if self.vary == "fold":
            self._check_folds()

    def member(self, index: int) -> Experiment:
        """Member `index`, a function of (seed, index) alone: the same on 1 and on 8 devices."""
        return override(self.experiment, f"member {index}", self._changes(index))

    def _check_folds(self) -> None:
        protocol = self.experiment.protocol
        if self.size != protocol.folds:
            problem = f"{self.size} members do not hold out each fold once"
            raise ConfigError("--vary", [f"{problem}. Allowed: {protocol.folds}, protocol.folds"])
        if protocol.selection != "validation":
            problem = f"fold holds out classes, but protocol.selection is {protocol.selection}"
            raise ConfigError("--vary", [f"{problem}. Allowed: validation"])

    def _changes(self, index: int) -> dict[str, Any]:
        own = self.experiment.seed
        strided = (own * _SEED_STRIDE + index) % 2**31
        match self.vary:
            case "meta_classes":
                return {"seed": strided, "method.draw_seed": strided}
            case "seed":
                return {"seed": strided}
            case "fold":
                return {"protocol.fold": index}
            case "new_seed":
                return {"seed": (own + 1 + index) % 2**31}

    def write(self, path: Path) -> None:
        """Write the plan, enough to run it again."""
        document = {"size": self.size, "vary": self.vary, "experiment": self.experiment.document()}
        write_text(path, yaml.safe_dump(document, sort_keys=False))


def default_vary(experiment: Experiment) -> Vary:
    """Meta-classes where the method deals them, else seeds."""
    return "meta_classes" if hasattr(experiment.method.config, "draw_seed") else "seed"


def cross_validation(experiment: Experiment) -> Ensemble:
    """One member per fold, each at the epoch that its held-out classes choose."""
    chosen = override(experiment, "cv", {"protocol.selection": "validation"})
    return Ensemble(chosen, chosen.protocol.folds, "fold")


def repeats(experiment: Experiment, size: int) -> Ensemble:
    """The experiment `size` times, by its own selection rule, with seeds that are not its own.

    Raises:
        ConfigError: If `size` is below 1.
    """
    if size < 1:
        raise ConfigError("--repeats", [f"{size} is not allowed. Allowed: at least 1"])
    return Ensemble(experiment, size, "new_seed")


def read_ensemble(path: Path, overrides: Sequence[Voice] = ()) -> Ensemble:
    """Read the plan of a run folder."""
    voice = read_file(path)
    experiment = resolve(str(path), [voice.below("experiment"), *overrides]).experiment
    return Ensemble(experiment, int(voice.values["size"]), voice.values["vary"])
