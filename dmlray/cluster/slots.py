"""Slots: actors that hold one share of a GPU, or one CPU core, and train member after member.

The driver hires as many as the living cluster has room for. A slot gets a member only once its
process is up, so that no member waits for a machine that is lost or was promised and never came.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
import torch
from ray.exceptions import RayActorError

from dmlray.cluster.reporters import ToTensorBoard
from dmlray.cluster.session import Cluster
from dmlray.errors import ConfigError, RunError
from dmlray.learn import journal
from dmlray.learn.device import default_device, set_threads
from dmlray.learn.job import job
from dmlray.learn.loop import Epoch, Report
from dmlray.learn.training import Place
from dmlray.plans.experiment import Experiment
from dmlray.plans.folder import RunFolder

_MOST_MEMBERS_PER_GPU = 100
_GRAIN = 10_000  # Ray counts resources in ten-thousandths
_USABLE = 0.95  # of a GPU's memory: allocators of neighbours leave gaps
_STARTS = 3  # in a row that may fail


class Memory(NamedTuple):
    """Bytes that one member needs of a GPU, its CUDA context included, and what the GPU has."""

    member: int
    device: int

    def fits(self) -> int:
        """How many such members a GPU holds."""
        return int(_USABLE * self.device // max(1, self.member))


class Slot:
    """Trains one member after another; holds torch, and nothing of any member."""

    def train(self, plan: Experiment, folder: RunFolder) -> None:
        """Train in `folder`, or go on there; the results are files."""
        self._job(plan, folder, ToTensorBoard(folder))

    def probe(self, plan: Experiment, folder: RunFolder) -> Memory | None:
        """Train one epoch in `folder`, which is not lost, and measure its GPU; None without one."""
        if not torch.cuda.is_available():
            return None
        told = len(journal.read(folder.metrics))

        def report(epoch: Epoch) -> None:
            if epoch.number > told:
                raise _Enough

        with suppress(_Enough):
            self._job(plan, folder, report)
        return _memory()

    @staticmethod
    def _job(plan: Experiment, folder: RunFolder, report: Report) -> None:
        set_threads(1)
        place = Place(default_device())
        job(plan, folder, report, place, with_zero_shot=folder.path.name == "000")


class _Enough(Exception):
    """The probe has seen an epoch."""


def _memory() -> Memory:
    """The peak of this process, which has the GPU for itself."""
    free, device = torch.cuda.mem_get_info()
    cached = torch.cuda.max_memory_reserved() - torch.cuda.memory_reserved()
    return Memory(device - free + cached, device)


@dataclass(frozen=True)
class Share:
    """What a slot takes: a part of a GPU, or a CPU core where `members_per_gpu` is 0."""

    cpus: float
    members_per_gpu: int

    @property
    def gpus(self) -> float:
        """Rounded down, so that all shares of a GPU fit."""
        return _GRAIN // self.members_per_gpu / _GRAIN if self.members_per_gpu else 0.0

    def room(self, cluster: Cluster) -> int:
        """How many slots of this size the living nodes hold at once."""
        fits = [_times(node.cpus, self.cpus) for node in cluster.machines]
        if not self.members_per_gpu:
            return sum(fits)
        shares = [int(node.gpus) * self.members_per_gpu for node in cluster.machines]
        return sum(map(min, fits, shares))


def _times(has: float, needs: float) -> int:
    """How often `needs` goes into `has`; without bound where nothing is needed."""
    return int(has / needs + 1e-9) if needs else 1_000_000


def share_of(cluster: Cluster, members_per_gpu: int) -> Share:
    """A part of a GPU, with a fair part of its machine's cores, where there are GPUs.

    Raises:
        ConfigError: If the number of members is nonsense.
        ResourceError: If the cluster cannot hold even one slot.
    """
    if not 1 <= members_per_gpu <= _MOST_MEMBERS_PER_GPU:
        allowed = f"Allowed: 1 to {_MOST_MEMBERS_PER_GPU}"
        raise ConfigError("--members-per-gpu", [f"{members_per_gpu} is not allowed. {allowed}"])
    hosts = [node for node in cluster.machines if node.gpus >= 1]
    if hosts:
        fair = min(node.cpus / (node.gpus * members_per_gpu) for node in hosts)
        share = Share(int(min(1.0, fair) * _GRAIN) / _GRAIN, members_per_gpu)
    else:
        share = Share(1.0, 0)
    cluster.fit(share.cpus, share.gpus)
    return share


@dataclass(frozen=True, eq=False)
class Hired:
    """A slot's handle, and the share that it holds."""

    actor: Any
    share: Share


class Slots:
    """The driver's side: slots that start, wait for a member, or train one."""

    def __init__(self, actor: type) -> None:
        self._class = ray.remote(actor)
        self._starting: dict[Any, Hired] = {}
        self._idle: list[Hired] = []
        self._busy: dict[Any, Hired] = {}
        self._failed_starts = 0

    @property
    def busy(self) -> int:
        return len(self._busy)

    def follow(self, share: Share, room: int, wanted: int) -> None:
        """Hire for `wanted` waiting members as far as there is room; let go what has no place."""
        self._let_go([slot for slot in self._unused() if slot.share != share])
        spare = len(self._starting) + len(self._idle) + len(self._busy) - room
        self._let_go(self._unused()[: max(0, spare)])
        lacking = min(wanted, room - len(self._busy)) - len(self._unused())
        for _ in range(lacking):
            size = {"num_cpus": share.cpus, "num_gpus": share.gpus}
            slot = Hired(self._class.options(**size, max_restarts=0).remote(), share)
            self._starting[slot.actor.__ray_ready__.remote()] = slot

    def take(self, share: Share) -> Hired | None:
        """A slot of this size that is up and free."""
        slot = next((slot for slot in self._idle if slot.share == share), None)
        if slot:
            self._idle.remove(slot)
        return slot

    def give(self, slot: Hired, reference: Any) -> None:
        """The slot works on what `reference` will be."""
        self._busy[reference] = slot

    def wait(self, seconds: float) -> Iterator[tuple[Any, Hired]]:
        """Yield (reference, slot) of all work that is over, after at most so many seconds.

        A slot that trained must be put back with `free` if it lives.

        Raises:
            RunError: If slots do not start, again and again.
        """
        references = [*self._starting, *self._busy]
        if not references:
            time.sleep(seconds)
            return
        if not ray.wait(references, num_returns=1, timeout=seconds)[0]:
            return
        for reference in ray.wait(references, num_returns=len(references), timeout=0)[0]:
            if reference in self._starting:
                self._started(reference)
            else:
                yield reference, self._busy.pop(reference)

    def free(self, slot: Hired) -> None:
        """The slot lives and may train another member."""
        self._idle.append(slot)

    def fire(self, slot: Hired) -> None:
        """The slot's process or node is lost, or out of reach: it must not write any more."""
        ray.kill(slot.actor)

    def close(self) -> None:
        """End all slots, and what they do."""
        self._let_go([*self._unused(), *self._busy.values()])
        self._busy.clear()

    def _started(self, reference: Any) -> None:
        slot = self._starting.pop(reference)
        try:
            ray.get(reference)
        except RayActorError as error:  # its node was lost, or lacks what a slot needs
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                reason = str(error).strip().split("\n")[-1].strip()
                raise RunError(f"slots do not start, see `dmlray doctor`: {reason}") from error
            return
        self._failed_starts = 0
        self._idle.append(slot)

    def _unused(self) -> list[Hired]:
        return [*self._starting.values(), *self._idle]

    def _let_go(self, slots: list[Hired]) -> None:
        for slot in slots:
            ray.kill(slot.actor)
        gone = set(slots)
        self._starting = {r: slot for r, slot in self._starting.items() if slot not in gone}
        self._idle = [slot for slot in self._idle if slot not in gone]
