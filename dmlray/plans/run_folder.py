"""The names inside a run folder."""

import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dmlray.atomic_files import storage_error
from dmlray.errors import ConfigError, DiskFullError
from dmlray.local_paths import refuse_address

KINDS = ("benchmark", "search", "ensemble", "cross_validation", "repeat", "merge", "experiment")
_LONGEST = Path(".ray", "x" * 200)  # about what Ray's own files need below a run folder


@dataclass(frozen=True)
class RunFolder:
    """Where each thing of a run lies; see docs/runs.md.

    `root` is the folder of the opened run that this one is or belongs to: `make` never creates it.
    """

    path: Path
    root: Path | None = None

    def __post_init__(self) -> None:
        try:
            refuse_address(self.path)
        except ValueError as error:
            raise ConfigError("run folder", [str(error)]) from None
        object.__setattr__(self, "path", self.path.absolute())  # workers stand in other folders

    def __str__(self) -> str:
        return os.path.relpath(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    def plan(self, kind: str) -> Path:
        """The resolved plan, enough to run it again; `kind` is one of `KINDS`."""
        return self.path / f"{kind}.yaml"

    @property
    def lock(self) -> Path:
        """The process that writes this run now."""
        return self.path / "lock.json"

    @property
    def ray(self) -> Path:
        """What Ray keeps for itself."""
        return self.path / ".ray"

    @property
    def environment(self) -> Path:
        """The file of versions and hardware."""
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per epoch: what progress bars, plots and TensorBoard are made of."""
        return self.path / "metrics.jsonl"

    def logger_run(self, logger: str) -> Path:
        """The identifier of this run at `logger`, by which a resumed session continues it."""
        return self.path / f"{logger}_run.txt"

    @property
    def title(self) -> str:
        """The name of the opened run and, of a part of it, the way there."""
        root = self.root or self.path
        return str(Path(root.name, self.path.relative_to(root)))

    @property
    def progress_log(self) -> Path:
        """Progress of a long part of a training, see `metrics_log.count`."""
        return self.path / "counting.json"

    @property
    def last_checkpoint(self) -> Path:
        """The checkpoint that a resumed run continues from."""
        return self.path / "checkpoints" / "last.pt"

    @property
    def best_checkpoint(self) -> Path:
        """The checkpoint of the best epoch."""
        return self.path / "checkpoints" / "best.pt"

    @property
    def embeddings(self) -> Path:
        """Unit embeddings (N, D) of the test images."""
        return self.path / "embeddings.npy"

    @property
    def validation_embeddings(self) -> Path:
        """Unit embeddings (N, D) of the training images that were held out, if any were."""
        return self.path / "validation.npy"

    @property
    def items(self) -> Path:
        """Path, relative to the data set's root, and class of each row of `embeddings`."""
        return self.path / "items.csv"

    @property
    def teacher(self) -> Path:
        """Vectors of the training images by the teacher of all trainings of the opened run."""
        return (self.root or self.path) / "teacher.pt"

    @property
    def merged(self) -> Path:
        """Which members a merge took, and what it did beyond laying them side by side."""
        return self.path / "merged.safetensors"

    def table(self, name: str) -> Path:
        """A table that the report shows in part: classes, confusions or suspects."""
        return self.path / f"{name}.csv"

    @property
    def projector(self) -> Path:
        """Vectors, classes and pictures of the test images for TensorBoard's projector."""
        return self.path / "projector"

    @property
    def projector_config(self) -> Path:
        """What TensorBoard's projector looks for."""
        return self.path / "projector_config.pbtxt"

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
    def backbones(self) -> Path:
        """A comparison of frozen backbones, whose runs of zero epochs lie beside it."""
        return self.path / "backbones.json"

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
        """The picture of the scores by epoch or ensemble size."""
        return self.path / "curve.png"

    @property
    def scores(self) -> Path:
        """The file of the final scores."""
        return self.path / "scores.json"

    @property
    def cost(self) -> Path:
        """Seconds of a finished training, and the devices it ran on."""
        return self.path / "cost.json"

    @property
    def results(self) -> Path:
        """A benchmark's finished cells, a JSON file each."""
        return self.path / "results"

    def cell(self, dataset: str, method: str) -> Path:
        """Return the folder of the runs of a benchmark's cell."""
        return self.path / "cells" / dataset / method

    def leaderboard(self, suffix: str) -> Path:
        """A benchmark's leaderboard: json, html, md, tex, csv or png."""
        return self.path / f"leaderboard.{suffix}"

    @property
    def repeat(self) -> "RunFolder":
        """Repeats of a search's winner: a run folder of its own."""
        return self._part("repeat")

    def evaluation(self, data: str) -> Path:
        """Scores of the model here on other data; also of an exported one."""
        return self.path / f"evaluation_{data}.json"

    def backbone(self, name: str) -> "RunFolder":
        """Return the folder of a run of zero epochs, by a name that `backbones` has."""
        return self._part(name)

    def member(self, index: int) -> "RunFolder":
        """Return the folder of an ensemble's member."""
        return self._part("members", f"{index:03d}")

    def trial(self, number: int) -> "RunFolder":
        """Return the folder of a search's trial."""
        return self._part("trials", f"{number:04d}")

    def fold(self, number: int) -> "RunFolder":
        """Return the folder of a fold."""
        return self._part(f"fold{number}")

    def _part(self, *names: str) -> "RunFolder":
        return RunFolder(self.path.joinpath(*names), self.root)

    def kind(self) -> str:
        """What was run here: one of `KINDS`.

        Raises:
            ConfigError: If this is no run folder.
        """
        try:
            for kind in KINDS:
                if self.plan(kind).is_file():
                    return kind
        except OSError as error:
            raise ConfigError(str(self), [f"cannot be read: {error.strerror}"]) from None
        raise ConfigError(str(self), ["is not a run folder: it holds no plan"])

    def is_started(self) -> bool:
        """Whether anything lies here; the lock of a process that was killed is nothing."""
        return os.path.isdir(self.path) and any(path != self.lock for path in self.path.iterdir())

    def check_new(self) -> None:
        """Check that a run can begin here; nothing is ever overwritten.

        Raises:
            ConfigError: If anything lies here, or the folder cannot be made or written.
        """
        self.check_writable()
        if self.is_started():
            allowed = f"Allowed: a new folder (`out`), or go on with `resume` {self}"
            raise ConfigError(str(self), [f"exists. {allowed}"])

    def check_writable(self) -> None:
        """Check that the folder can be made and written; nothing is left behind.

        Raises:
            ConfigError: If not.
            DiskFullError: If the disk is full.
        """
        try:
            if os.path.lexists(self.path) and not self.path.is_dir():
                raise ConfigError(str(self), ["exists and is no folder. Allowed: a new folder"])
            self._try()
        except OSError as error:
            failure = storage_error(error)
            if isinstance(failure, DiskFullError):
                raise failure from None
            reason = f"cannot be made or written ({error.strerror})"
            raise ConfigError(str(self), [f"{reason}. Allowed: another folder"]) from None

    def _try(self) -> None:
        """Make and write the same folders inside a temporary one: permissions can say too little.

        Raises:
            OSError: What the file system refuses.
        """
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(self.path / _LONGEST)
        parents = (self.path, *self.path.parents)
        there = next(parent for parent in parents if os.path.lexists(parent))
        with tempfile.TemporaryDirectory(prefix=".dmlray-", dir=there) as temporary:
            folder = Path(temporary) / self.path.relative_to(there)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "written").write_bytes(b"1")

    def remove_if_empty(self) -> None:
        """Remove what Ray, which makes its folders anew, has left under a moved run's old name."""
        if self.path.is_dir() and list(self.path.iterdir()) == [self.ray]:
            shutil.rmtree(self.path, ignore_errors=True)

    def make(self) -> None:
        """Make this folder.

        Below the folder of an opened run, which is never made a second time: what is still written
        after it was moved away must not land in a new folder of its old name.

        Raises:
            OSError: If the disk refuses, or the opened run is gone.
        """
        if self.root is None:
            self.path.mkdir(parents=True, exist_ok=True)
            return
        folder = self.root
        folder.stat()
        for name in self.path.relative_to(self.root).parts:
            folder /= name
            folder.mkdir(exist_ok=True)
