"""Members of an ensemble on slot actors, and the actor that merges their embeddings.

A slot is one share of a GPU, or one CPU core. The driver keeps the queue: a member whose slot
died goes back to it, and a new slot takes the place of the dead one where there is room.
"""

from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayActorError, RayTaskError

from dmlray.cluster.reporters import ToTensorBoard
from dmlray.cluster.session import Cluster
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, RunError
from dmlray.evaluation.merge import prefix_scores
from dmlray.learn import journal
from dmlray.learn.averages import joint
from dmlray.learn.device import default_device, set_threads
from dmlray.learn.job import job
from dmlray.learn.scores import Scores, read_scores
from dmlray.learn.training import Place, load_dataset
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.folder import RunFolder
from dmlray.reporting.display import Display
from dmlray.reporting.tensorboard import TensorBoard

_TRIES = 3  # of one member, before the ensemble gives up on it


class Slot:
    """Trains one member after another; holds torch, and nothing of any member."""

    def train(self, plan: Experiment, folder: RunFolder) -> None:
        """Train in `folder`, or go on there; the results are files."""
        set_threads(1)
        place = Place(default_device())
        job(plan, folder, ToTensorBoard(folder), place, with_zero_shot=folder.path.name == "000")


class Merger:
    """Adds the members' embeddings in order and scores the ensemble at every size."""

    def merge(
        self, files: list[Path], labels: np.ndarray, recall_at: tuple[int, ...]
    ) -> list[dict[str, float]]:
        """Scores of the first 1, 2, ..., L members; the files hold unit rows (N, D)."""
        members = [np.load(file, mmap_mode="r") for file in files]
        return prefix_scores(members, torch.as_tensor(labels), recall_at)


@dataclass
class Failure:
    """What went wrong with a member, and how often."""

    tries: int = 0
    reason: str = ""


class Pool:
    """The driver's side: a queue of members and the slots that take them."""

    def __init__(
        self, plan: Ensemble, folder: RunFolder, cluster: Cluster, members_per_gpu: int
    ) -> None:
        self.plan, self.folder = plan, folder
        self.share = self._share(cluster, members_per_gpu)
        self.todo = deque(i for i in range(plan.size) if not self._finished(i))
        self.missing = tuple(self.todo)
        self.slots = min(cluster.fit(*self.share), max(1, len(self.missing)))
        self.idle: list[Any] = []
        self.busy: dict[Any, tuple[int, Any]] = {}
        self.failures: dict[int, Failure] = {}

    def run(self, display: Display) -> None:
        """Train all members that are missing.

        Raises:
            RunError: If a member fails again and again; the others are finished first.
        """
        epochs = len(self.missing) * self.plan.experiment.budget.epochs
        display.start(f"{len(self.missing)} members, epochs", epochs)
        while self.todo or self.busy:
            self._hand_out()
            done, _ = ray.wait(list(self.busy), num_returns=1, timeout=0.5)
            for reference in done:
                self._take_back(reference, display)
            self._show(display)
        for slot in self.idle:
            ray.kill(slot)
        lost = {i: f.reason for i, f in self.failures.items() if f.tries >= _TRIES}
        if lost:
            raise RunError("; ".join(f"member {i} failed: {why}" for i, why in lost.items()))

    def _hand_out(self) -> None:
        while self.todo and len(self.busy) < self.slots:
            slot = self.idle.pop() if self.idle else self._new_slot()
            index = self.todo.popleft()
            folder = self.folder.member(index)
            reference = slot.train.remote(self.plan.member(index), folder)
            self.busy[reference] = (index, slot)

    def _take_back(self, reference: Any, display: Display) -> None:
        index, slot = self.busy.pop(reference)
        try:
            ray.get(reference)
            self.idle.append(slot)
        except RayActorError:
            self._failed(index, "its process died", display)
        except RayTaskError as error:
            self.idle.append(slot)
            self._failed(index, str(error.cause), display)

    def _failed(self, index: int, reason: str, display: Display) -> None:
        failure = self.failures.setdefault(index, Failure())
        failure.tries, failure.reason = failure.tries + 1, reason
        if failure.tries < _TRIES:
            self.todo.appendleft(index)
            display.say(f"member {index}: {reason}; goes on from its last checkpoint")

    def _new_slot(self) -> Any:
        cpus, gpus = self.share
        return ray.remote(Slot).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0).remote()

    def _finished(self, index: int) -> bool:
        member = self.folder.member(index)
        return member.scores.exists() and member.embeddings.exists()

    @staticmethod
    def _share(cluster: Cluster, members_per_gpu: int) -> tuple[float, float]:
        if cluster.gpus < 1:
            return 1.0, 0.0
        cpus = min(1.0, cluster.cpus / (cluster.gpus * members_per_gpu))
        return cpus, 1.0 / members_per_gpu

    def _show(self, display: Display) -> None:
        active = {index for index, _ in self.busy.values()}
        waiting = set(self.todo)
        epochs = self.plan.experiment.budget.epochs
        done = sum(
            len(journal.read(self.folder.member(i).metrics)) if i in active else epochs
            for i in self.missing
            if i not in waiting
        )
        over = len(self.missing) - len(waiting) - len(active)
        display.update(done, f"{over} members over")


def train_members(
    plan: Ensemble, folder: RunFolder, cluster: Cluster, members_per_gpu: int, display: Display
) -> None:
    """Train the members that `folder` lacks."""
    if members_per_gpu < 1:
        raise ConfigError("--members-per-gpu", ["must be at least 1"])
    for index in range(plan.size):
        _drop_damaged(folder.member(index), display)
    Pool(plan, folder, cluster, members_per_gpu).run(display)


def merge_members(plan: Ensemble, folder: RunFolder) -> Scores:
    """Scores of the whole ensemble and its curve over sizes, from the members' files."""
    files = [folder.member(i).embeddings for i in range(plan.size)]
    labels = test_subset(load_dataset(plan.experiment)).labels
    merger = ray.remote(Merger).options(num_cpus=0).remote()
    depths = plan.experiment.protocol.depths(len(labels))
    curve: list[dict[str, float]] = ray.get(merger.merge.remote(files, labels, depths))
    parts = [read_scores(folder.member(i).scores) for i in range(plan.size)]
    scores = replace(
        joint(plan, parts),
        metrics=curve[-1],
        curve=curve,
        embedding_size=sum(part.embedding_size for part in parts),
        clustering=None,  # of one member; the merged embeddings are never side by side
    )
    board = TensorBoard(folder.path)
    for size, metrics in enumerate(curve, 1):
        board.epoch(size, {f"ensemble/{name}": value for name, value in metrics.items()})
    board.close()
    scores.write(folder.scores)
    return scores


def _drop_damaged(member: RunFolder, display: Display) -> None:
    """A member whose results cannot be read is trained again from its checkpoint."""
    if not member.scores.exists():
        return
    try:
        read_scores(member.scores)
        np.load(member.embeddings, mmap_mode="r")
    except (RunError, OSError, ValueError):
        display.say(f"{member.path}: its results are damaged; made again")
        member.scores.unlink(missing_ok=True)
