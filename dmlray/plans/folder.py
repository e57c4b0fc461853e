"""The names inside a run folder."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from dmlray.errors import ConfigError

KINDS = ("search", "ensemble", "cross_validation", "repeat", "merge", "experiment")


@dataclass(frozen=True)
class RunFolder:
    """Where each thing of a run lies; see README, "A run folder"."""

    path: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", self.path.absolute())  # workers stand in other folders

    def __str__(self) -> str:
        return os.path.relpath(self.path)

    @property
    def typed(self) -> str:
        """The folder as one types it in a shell."""
        path = str(self)
        return shlex.quote(f"./{path}" if path.startswith("-") else path)

    def plan(self, kind: str) -> Path:
        """The resolved plan, enough to run it again; `kind` is one of `KINDS`."""
        return self.path / f"{kind}.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch: what progress bars, plots and TensorBoard are made of."""
        return self.path / "metrics.jsonl"

    @property
    def counting(self) -> Path:
        """How far a long stretch of a job is, while it lasts: see `journal.count`."""
        return self.path / "counting.json"

    @property
    def last_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        return self.path / "checkpoints" / "best.pt"

    @property
    def embeddings(self) -> Path:
        """Unit embeddings (N, D) of the test images."""
        return self.path / "embeddings.npy"

    @property
    def study(self) -> Path:
        """Optuna's own SQLite storage."""
        return self.path / "study.db"

    @property
    def best(self) -> Path:
        """A search's winner: a legal experiment file."""
        return self.path / "best.yaml"

    @property
    def trials(self) -> Path:
        """A search's trials, their metrics and reasons, and what mattered."""
        return self.path / "trials.json"

    @property
    def pareto(self) -> Path:
        """The trials that no other beats in every metric."""
        return self.path / "pareto.json"

    @property
    def zero_shot(self) -> Path:
        """Scores of the trunk's features before any training."""
        return self.path / "zero_shot.json"

    @property
    def report(self) -> Path:
        """One self-contained page for a browser."""
        return self.path / "report.html"

    @property
    def curve(self) -> Path:
        """An ensemble's scores at every size, for others to read."""
        return self.path / "curve.json"

    @property
    def curve_picture(self) -> Path:
        return self.path / "curve.png"

    @property
    def scores(self) -> Path:
        return self.path / "scores.json"

    @property
    def repeat(self) -> "RunFolder":
        """Repeats of a search's winner: a run folder of its own."""
        return RunFolder(self.path / "repeat")

    def member(self, index: int) -> "RunFolder":
        return RunFolder(self.path / "members" / f"{index:03d}")

    def trial(self, number: int) -> "RunFolder":
        return RunFolder(self.path / "trials" / f"{number:04d}")

    def fold(self, number: int) -> "RunFolder":
        return RunFolder(self.path / f"fold{number}")

    def kind(self) -> str:
        """What was run here: one of `KINDS`.

        Raises:
            ConfigError: If this is no run folder.
        """
        for kind in KINDS:
            if self.plan(kind).is_file():
                return kind
        raise ConfigError(str(self), ["is not a run folder: it holds no plan"])

    def must_be_new(self) -> None:
        """Nothing is ever overwritten in silence.

        Raises:
            ConfigError: If something is there already.
        """
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            allowed = f"Allowed: a new folder (--out), or go on with --resume {self}"
            raise ConfigError(str(self), [f"exists. {allowed}"])

    def claim(self) -> None:
        """Take a new folder for a new run."""
        self.must_be_new()
        self.path.mkdir(parents=True, exist_ok=True)
