"""Members of an ensemble on slots. The driver keeps the queue.

A member whose slot or node died goes back to the queue and on from its last checkpoint; the
number of slots follows the living cluster.
"""

import heapq
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from dmlray.cluster import session
from dmlray.cluster.failures import DIED
from dmlray.cluster.remains import begin_anew, take_up
from dmlray.cluster.session import Cluster
from dmlray.cluster.slots import Hired, Memory, Share, Slot, Slots, share_of
from dmlray.errors import DamagedCheckpoint, DmlrayError, ResourceError, RunError
from dmlray.learn import journal
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.folder import RunFolder
from dmlray.reporting.display import Display

_TRIES = 3  # of one member without an epoch gained, before the ensemble gives up on it
_LOOK = 0.5  # seconds between looks at the cluster and the journals
_PATIENCE = 120.0  # seconds without room for a single slot: a node that comes back is waited for
_GIB = 1 << 30


@dataclass
class Failure:
    """What went wrong with a member, and how often since it last gained an epoch."""

    tries: int = 0
    epochs: int = 0
    reason: str = ""


class Pool:
    """A queue of members and the slots that take them, lowest number first."""

    def __init__(
        self,
        plan: Ensemble,
        folder: RunFolder,
        cluster: Cluster,
        members_per_gpu: int,
        slot: type = Slot,
    ) -> None:
        self.plan, self.folder = plan, folder
        self._asked = members_per_gpu
        self.share = share_of(cluster, members_per_gpu)
        self.todo = [i for i in range(plan.size) if not self._finished(i)]
        self.missing = tuple(self.todo)
        self.active: dict[Any, int] = {}
        self.failures: dict[int, Failure] = {}
        self.epochs = {i: plan.member(i).budget.epochs for i in self.missing}
        self._slots = Slots(slot)
        self._probing = self.share.members_per_gpu > 1 and len(self.todo) > 1
        self._room_seen = self._looked = time.monotonic()

    def run(self, display: Display, over: Callable[[int], None] = lambda index: None) -> None:
        """Train all members that are missing; tell `over` the number of each that is done.

        Raises:
            RunError: If a member fails again and again (the others are finished first), or no
                node is left.
            ResourceError: If a GPU does not hold the members that were asked for.
        """
        display.start(f"{len(self.missing)} members, epochs", sum(self.epochs.values()))
        self._follow()
        try:
            while self.todo or self.active:
                self._hand_out()
                for reference, slot in self._slots.wait(_LOOK):
                    self._take_back(reference, slot, display, over)
                if time.monotonic() - self._looked >= _LOOK:
                    self._follow()
                    self._show(display)
        finally:
            self._slots.close()
        self._show(display)
        lost = {i: f.reason for i, f in self.failures.items() if f.tries >= _TRIES}
        if lost:
            raise RunError("; ".join(f"member {i} failed: {why}" for i, why in lost.items()))

    @property
    def _wanted(self) -> Share:
        """The share of the next slot; the probe has a GPU for itself."""
        return Share(self.share.cpus, 1) if self._probing else self.share

    def _follow(self) -> None:
        """Have as many slots as there is room for and work to do."""
        room = self._wanted.room(session.living())
        self._looked = time.monotonic()
        if room:
            self._room_seen = self._looked
        elif self._looked - self._room_seen > _PATIENCE:
            resume = f"dmlray ensemble --resume {self.folder.typed}"
            raise RunError(f"no node is left that has room for a member. Go on with: {resume}")
        if self._probing:
            room = min(1, room)
        self._slots.follow(self._wanted, room, len(self.todo))

    def _hand_out(self) -> None:
        while self.todo and (slot := self._slots.take(self._wanted)):
            index = heapq.heappop(self.todo)
            work = slot.actor.probe if self._probing else slot.actor.train
            reference = work.remote(self.plan.member(index), self.folder.member(index))
            self.active[reference] = index
            self._slots.give(slot, reference)

    def _take_back(
        self, reference: Any, slot: Hired, display: Display, over: Callable[[int], None]
    ) -> None:
        index = self.active.pop(reference)
        try:
            self._finish(index, ray.get(reference), over)
            self._slots.free(slot)
        except RayTaskError as error:
            self._slots.free(slot)
            self._error(index, slot.share, error.cause, display)
        except RayError:
            self._slots.fire(slot)
            self._failed(index, DIED, display)

    def _finish(self, index: int, memory: Memory | None, over: Callable[[int], None]) -> None:
        if self._probing:
            self._measured(memory)
            heapq.heappush(self.todo, index)
        else:
            over(index)

    def _measured(self, memory: Memory | None) -> None:
        """The probe is over: shares are used if they fit."""
        self._probing = False
        if memory and memory.fits() < self._asked:
            raise ResourceError(
                f"--members-per-gpu: {self._asked} members of {memory.member / _GIB:.1f} GiB do "
                f"not fit a GPU of {memory.device / _GIB:.1f} GiB. Allowed: at most "
                f"{max(1, memory.fits())}, with --resume {self.folder.typed}"
            )

    def _error(self, index: int, share: Share, cause: BaseException, display: Display) -> None:
        if isinstance(cause, torch.cuda.OutOfMemoryError):
            self._out_of_memory(index, share, display)
        elif isinstance(cause, DamagedCheckpoint):
            begin_anew(self.folder.member(index))
            reason = "its checkpoint cannot be read"
            self._failed(index, reason, display, "trained again from its start")
        elif isinstance(cause, DmlrayError):
            self.failures[index] = Failure(_TRIES, 0, str(cause))  # no retry would mend it
        else:
            self._failed(index, f"{type(cause).__name__}: {cause}", display)

    def _out_of_memory(self, index: int, share: Share, display: Display) -> None:
        """The share that was asked for is halved, once; whoever failed with it is tried again."""
        if share.members_per_gpu != self._asked or self._asked == 1:
            self.failures[index] = Failure(_TRIES, 0, self._no_memory(share))
            return
        half = self._asked // 2
        self.share = Share(share.cpus, half)
        heapq.heappush(self.todo, index)
        display.say(
            f"member {index}: GPU out of memory; from now on {half} members per GPU, "
            "and it is tried once more, from its last checkpoint"
        )

    def _no_memory(self, share: Share) -> str:
        """What to give, where half of the members that were asked for are too many, too."""
        if share.members_per_gpu == 1:
            return "out of memory on a GPU of its own: give a smaller data.batch_size, in a new run"
        fewer = f"--resume {self.folder.typed} --members-per-gpu {share.members_per_gpu // 2}"
        return f"out of memory with {share.members_per_gpu} members per GPU as well: give {fewer}"

    def _failed(
        self,
        index: int,
        reason: str,
        display: Display,
        then: str = "goes on from its last checkpoint",
    ) -> None:
        failure = self.failures.setdefault(index, Failure())
        epochs = self._epochs_of(index)
        failure.tries = failure.tries + 1 if epochs <= failure.epochs else 1
        failure.epochs, failure.reason = epochs, reason
        if failure.tries < _TRIES:
            heapq.heappush(self.todo, index)
            display.say(f"member {index}: {reason}; {then}")

    def _finished(self, index: int) -> bool:
        member = self.folder.member(index)
        return member.scores.exists() and member.embeddings.exists()

    def _epochs_of(self, index: int) -> int:
        return len(journal.read(self.folder.member(index).metrics))

    def _show(self, display: Display) -> None:
        active, waiting = set(self.active.values()), set(self.todo)
        done = sum(
            self._epochs_of(i) if i in active else self.epochs[i]
            for i in self.missing
            if i not in waiting
        )
        over = len(self.missing) - len(waiting) - len(active)
        display.update(done, f"{over} members over, {len(active)} at work")


def train_members(
    plan: Ensemble,
    folder: RunFolder,
    cluster: Cluster,
    members_per_gpu: int,
    display: Display,
    over: Callable[[int], None] = lambda index: None,
) -> None:
    """Train the members that `folder` lacks.

    Raises:
        ConfigError: If a member that is there was trained by another plan.
    """
    take_up(plan, folder, display)
    Pool(plan, folder, cluster, members_per_gpu).run(display, over)
