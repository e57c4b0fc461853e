"""Members of an ensemble on slots. The driver keeps the queue.

A member whose slot or node died goes back to the queue and on from its last checkpoint; the
number of slots follows the living cluster.
"""

import time
from bisect import insort
from collections.abc import Callable, Set
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dmlray.atomic_files import storage_error
from dmlray.cluster.ensemble.actor_pool import Hired, Memory, Share, Slots, share_of
from dmlray.cluster.ensemble.broken_devices import Breakage
from dmlray.cluster.ensemble.member_actor import Slot
from dmlray.cluster.ensemble.member_failures import MemberFailures
from dmlray.cluster.ensemble.recovery import begin_anew, take_up
from dmlray.cluster.error_messages import DIED, is_out_of_memory, is_plain_out_of_memory
from dmlray.cluster.resources import PATIENCE, Cluster, Location, Patience, living
from dmlray.errors import (
    DamagedCheckpoint,
    DiskFull,
    DmlrayError,
    ResourceError,
    RunError,
    UnfinishedRun,
)
from dmlray.learn import metrics_log
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display

_LOOK = 0.5  # seconds between looks at the cluster and the journals


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
        self._failures = MemberFailures()
        self.epochs = {i: plan.member(i).budget.epochs for i in self.missing}
        self._breakage = Breakage()
        self._slots = Slots(slot, self._breakage.unused)
        shared = self.share.members_per_gpu > 1 and len(self.todo) > 1
        self._unmeasured = {plan.setting(i) for i in self.todo} if shared else set[int]()
        self._unfit_shown = 0
        self._patience, self._looked = Patience(PATIENCE), time.monotonic()

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
                self._show_unfit(display)
                if time.monotonic() - self._looked >= _LOOK:
                    self._follow()
                    self._show(display)
        finally:
            self._slots.close()
        self._show(display)
        if failed := self._failures.final():
            raise RunError(failed)

    @property
    def _to_probe(self) -> set[int]:
        """Settings that are to be measured before any GPU is shared."""
        members = [*self.todo, *self.active.values()] if self._unmeasured else []
        return self._unmeasured & {self.plan.setting(index) for index in members}

    @property
    def _wanted(self) -> Share:
        """The share of the next slot; a probe has a GPU for itself."""
        return Share(self.share.cpus, 1) if self._to_probe else self.share

    def _room(self, unused: Set[Location]) -> int:
        return self._wanted.room(living().without(unused | self._slots.unfit.keys()))

    def _follow(self) -> None:
        """Have as many slots as there is room for and work to do."""
        room = self._room(self._breakage.unused)
        if not room and self._breakage.unused:
            self._breakage.forget()
            room = self._room(set())
        if not room and self._slots.unfit:
            raise ResourceError("; ".join(f"{at}: {why}" for at, why in self._slots.unfit.items()))
        self._looked = time.monotonic()
        if self._patience.is_over(room):
            raise UnfinishedRun("no node is left that has room for a member")
        wanted = len(self._to_probe) - len(self.active) if self._to_probe else len(self.todo)
        self._slots.follow(self._wanted, room, max(0, wanted))

    def _show_unfit(self, display: Display) -> None:
        for where in list(self._slots.unfit)[self._unfit_shown :]:
            display.say(f"{where} is not used: {self._slots.unfit[where]}")
        self._unfit_shown = len(self._slots.unfit)

    def _hand_out(self) -> None:
        probing = bool(self._to_probe)
        for slot in self._slots.idle(self._wanted):
            if (index := self._next(slot)) is None:
                continue
            self.todo.remove(index)
            work = slot.actor.probe if probing else slot.actor.train
            reference = work.remote(self.plan.member(index), self.folder.member(index))
            self.active[reference] = index
            self._slots.give(slot, reference)

    def _next(self, slot: Hired) -> int | None:
        """The first waiting member for this slot: not where it failed, while there are others."""
        others = self._slots.elsewhere(slot.where)
        to_probe = self._to_probe - {self.plan.setting(i) for i in self.active.values()}
        for index in self.todo:
            failed = others and self._failures.last_at(index, slot.where)
            if not failed and (not self._to_probe or self.plan.setting(index) in to_probe):
                return index
        return None

    def _take_back(
        self, reference: Any, slot: Hired, display: Display, over: Callable[[int], None]
    ) -> None:
        index = self.active.pop(reference)
        try:
            found = ray.get(reference)
        except RayTaskError as error:
            self._failed_on(slot, index, error.cause, display)
            self._error(index, slot, error.cause, display)
        except RayError as error:
            self._failed_on(slot, index, error, display)
            self._failed(index, slot, DIED, display)
        else:
            self._slots.free(slot)
            self._breakage.works(slot.where)
            self._finish(index, found, over)

    def _failed_on(self, slot: Hired, index: int, cause: BaseException, display: Display) -> None:
        """Keep a slot whose process is in order; a broken CUDA context would fail all others."""
        if isinstance(cause, DmlrayError) or is_plain_out_of_memory(cause):
            self._slots.free(slot)
            return
        self._slots.fire(slot)
        if self._breakage.broke(slot.where, index, self._room):
            display.say(f"{slot.where} breaks again and again; it is not used any more")

    def _finish(self, index: int, memory: Memory | None, over: Callable[[int], None]) -> None:
        setting = self.plan.setting(index)
        if setting in self._unmeasured:
            self._unmeasured.discard(setting)
            if memory:
                memory.must_hold(self._asked)
            insort(self.todo, index)
        else:
            over(index)

    def _error(self, index: int, slot: Hired, cause: BaseException, display: Display) -> None:
        if isinstance(full := storage_error(cause), DiskFull):
            raise full  # no member could write anything
        if isinstance(cause, DamagedCheckpoint):
            begin_anew(self.folder.member(index))
            reason = "its checkpoint cannot be read"
            self._failed(index, slot, reason, display, "trained again from its start")
        elif isinstance(cause, DmlrayError):
            self._failures.give_up(index, str(cause))
        elif is_out_of_memory(cause):
            self._out_of_memory(index, slot, display)
        else:
            self._failed(index, slot, f"{type(cause).__name__}: {cause}", display)

    def _out_of_memory(self, index: int, slot: Hired, display: Display) -> None:
        """The share that was asked for is halved, once; whoever failed with it is tried again."""
        share = slot.share
        if not share.members_per_gpu:
            self._failed(index, slot, share.out_of_memory(), display)
        elif share.members_per_gpu != self._asked or self._asked == 1:
            self._failures.give_up(index, share.out_of_memory())
        else:
            half = self._asked // 2
            self.share = Share(share.cpus, half)
            insort(self.todo, index)
            display.say(
                f"member {index}: GPU out of memory; from now on {half} members per GPU, "
                "and it is tried once more, from its last checkpoint"
            )

    def _failed(
        self,
        index: int,
        slot: Hired,
        reason: str,
        display: Display,
        then: str = "goes on from its last checkpoint",
    ) -> None:
        if self._failures.add(index, reason, self._epochs_of(index), slot.where):
            insort(self.todo, index)
            display.say(f"member {index}: {reason}; {then}")

    def _finished(self, index: int) -> bool:
        member = self.folder.member(index)
        return member.scores.exists() and member.embeddings.exists()

    def _epochs_of(self, index: int) -> int:
        return len(metrics_log.read(self.folder.member(index).metrics))

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
