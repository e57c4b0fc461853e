"""Queue of an ensemble's members, which the driver assigns to actors.

A member whose actor or node died is requeued and resumes from its last checkpoint. The number of
actors follows the living nodes.
"""

import time
from bisect import insort
from collections.abc import Callable, Set
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dmlray.atomic_files import storage_error
from dmlray.cluster.ensemble.actor_pool import ActorHandle, ActorPool, Memory, Share, share_of
from dmlray.cluster.ensemble.broken_devices import BrokenDevices
from dmlray.cluster.ensemble.member_actor import Worker
from dmlray.cluster.ensemble.member_failures import MemberFailures
from dmlray.cluster.ensemble.recovery import recover_members, reset_member
from dmlray.cluster.error_messages import DIED, is_out_of_memory, is_plain_out_of_memory
from dmlray.cluster.resources import PATIENCE, Cluster, Location, Patience, current_cluster
from dmlray.errors import (
    DamagedCheckpointError,
    DiskFullError,
    DmlrayError,
    ResourceError,
    RunError,
    UnfinishedRunError,
)
from dmlray.learn import metrics_log
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display, speed

_POLL = 0.5  # seconds between polls of the cluster and the metrics logs


class MemberQueue:
    """Members and the actors that train them, lowest number first."""

    def __init__(
        self,
        plan: Ensemble,
        folder: RunFolder,
        cluster: Cluster,
        members_per_gpu: int,
        actor: type = Worker,
    ) -> None:
        self.plan, self.folder = plan, folder
        self._asked = members_per_gpu
        self.share = share_of(cluster, members_per_gpu)
        self.todo = [i for i in range(plan.size) if not self._finished(i)]
        self.missing = tuple(self.todo)
        self.active: dict[Any, int] = {}
        self._failures = MemberFailures()
        self.epochs = {i: plan.member(i).budget.epochs for i in self.missing}
        self._broken = BrokenDevices()
        self._actors = ActorPool(actor, self._broken.unused)
        shared = self.share.members_per_gpu > 1 and len(self.todo) > 1
        self._unmeasured = {plan.setting(i) for i in self.todo} if shared else set[int]()
        self._unfit_shown = 0
        self._patience, self._polled = Patience(PATIENCE), time.monotonic()

    def run(
        self, display: Display, on_finished: Callable[[int], None] = lambda index: None
    ) -> None:
        """Train all missing members; call `on_finished` with the number of each finished one.

        Raises:
            RunError: If a member fails repeatedly (the others are finished first), or no node is
                left.
            ResourceError: If `members_per_gpu` members do not fit on a GPU.
        """
        display.start(f"{len(self.missing)} members, epochs", sum(self.epochs.values()))
        self._scale()
        try:
            while self.todo or self.active:
                self._assign()
                for reference, actor in self._actors.wait(_POLL):
                    self._requeue(reference, actor, display, on_finished)
                self._show_unfit(display)
                if time.monotonic() - self._polled >= _POLL:
                    self._scale()
                    self._show(display)
        finally:
            self._actors.close()
        self._show(display)
        if failed := self._failures.final():
            raise RunError(failed)

    @property
    def _to_probe(self) -> set[int]:
        """Settings to measure before any GPU is shared."""
        members = [*self.todo, *self.active.values()] if self._unmeasured else []
        return self._unmeasured & {self.plan.setting(index) for index in members}

    @property
    def _wanted(self) -> Share:
        """Resources of the next actor; a probe has a whole GPU."""
        return Share(self.share.cpus, 1) if self._to_probe else self.share

    def _capacity(self, unused: Set[Location]) -> int:
        return self._wanted.capacity(current_cluster().without(unused | self._actors.unfit.keys()))

    def _scale(self) -> None:
        """Adapt the number of actors to the cluster and the waiting members."""
        capacity = self._capacity(self._broken.unused)
        if not capacity and self._broken.unused:
            self._broken.forget()
            capacity = self._capacity(set())
        if not capacity and self._actors.unfit:
            raise ResourceError("; ".join(f"{at}: {why}" for at, why in self._actors.unfit.items()))
        self._polled = time.monotonic()
        if self._patience.is_over(capacity):
            raise UnfinishedRunError("no node is left on which a member fits")
        wanted = len(self._to_probe) - len(self.active) if self._to_probe else len(self.todo)
        self._actors.scale_to(self._wanted, capacity, max(0, wanted))

    def _show_unfit(self, display: Display) -> None:
        for where in list(self._actors.unfit)[self._unfit_shown :]:
            display.log(f"{where} is not used: {self._actors.unfit[where]}")
        self._unfit_shown = len(self._actors.unfit)

    def _assign(self) -> None:
        probing = bool(self._to_probe)
        for actor in self._actors.idle(self._wanted):
            if (index := self._next(actor)) is None:
                continue
            self.todo.remove(index)
            work = actor.actor.probe if probing else actor.actor.train
            first = (
                index == 0
            )  # all members start from the same trunk, so one has its zero-shot scores
            reference = work.remote(self.plan.member(index), self.folder.member(index), first)
            self.active[reference] = index
            self._actors.assign(actor, reference)

    def _next(self, actor: ActorHandle) -> int | None:
        """Return the first waiting member, if possible not one whose last failure was here."""
        others = self._actors.is_elsewhere(actor.where)
        to_probe = self._to_probe - {self.plan.setting(i) for i in self.active.values()}
        for index in self.todo:
            failed = others and self._failures.last_at(index, actor.where)
            if not failed and (not self._to_probe or self.plan.setting(index) in to_probe):
                return index
        return None

    def _requeue(
        self,
        reference: Any,
        actor: ActorHandle,
        display: Display,
        on_finished: Callable[[int], None],
    ) -> None:
        index = self.active.pop(reference)
        try:
            memory = ray.get(reference)
        except RayTaskError as error:
            self._failed_on(actor, index, error.cause, display)
            self._error(index, actor, error.cause, display)
        except RayError as error:
            self._failed_on(actor, index, error, display)
            self._failed(index, actor, DIED, display)
        else:
            self._actors.free(actor)
            self._broken.record_success(actor.where)
            self._finish(index, memory, on_finished)

    def _failed_on(
        self, actor: ActorHandle, index: int, cause: BaseException, display: Display
    ) -> None:
        """Free an actor with a working process; kill others, whose CUDA context may be broken."""
        if isinstance(cause, DmlrayError) or is_plain_out_of_memory(cause):
            self._actors.free(actor)
            return
        self._actors.kill(actor)
        if self._broken.record_failure(actor.where, index, self._capacity):
            display.log(f"{actor.where} crashes repeatedly; it is not used any more")

    def _finish(
        self, index: int, memory: Memory | None, on_finished: Callable[[int], None]
    ) -> None:
        setting = self.plan.setting(index)
        if setting in self._unmeasured:
            self._unmeasured.discard(setting)
            if memory:
                memory.check_fits(self._asked)
            insort(self.todo, index)
        else:
            on_finished(index)

    def _error(
        self, index: int, actor: ActorHandle, cause: BaseException, display: Display
    ) -> None:
        if isinstance(full := storage_error(cause), DiskFullError):
            raise full  # no member could write anything
        if isinstance(cause, DamagedCheckpointError):
            reset_member(self.folder.member(index))
            reason = "its checkpoint cannot be read"
            self._failed(index, actor, reason, display, "trained again from its start")
        elif isinstance(cause, DmlrayError):
            self._failures.give_up(index, str(cause))
        elif is_out_of_memory(cause):
            self._out_of_memory(index, actor, display)
        else:
            self._failed(index, actor, f"{type(cause).__name__}: {cause}", display)

    def _out_of_memory(self, index: int, actor: ActorHandle, display: Display) -> None:
        """Halve the requested share, once, and retry the member."""
        share = actor.share
        if not share.members_per_gpu:
            self._failed(index, actor, share.out_of_memory(), display)
        elif share.members_per_gpu != self._asked or self._asked == 1:
            self._failures.give_up(index, share.out_of_memory())
        else:
            half = self._asked // 2
            self.share = Share(share.cpus, half)
            insort(self.todo, index)
            display.log(
                f"member {index}: GPU out of memory; from now on {half} members per GPU, "
                "and it is retried once, from its last checkpoint"
            )

    def _failed(
        self,
        index: int,
        actor: ActorHandle,
        reason: str,
        display: Display,
        then: str = "resumes from its last checkpoint",
    ) -> None:
        if self._failures.add(index, reason, self._epochs_of(index), actor.where):
            insort(self.todo, index)
            display.log(f"member {index}: {reason}; {then}")

    def _finished(self, index: int) -> bool:
        member = self.folder.member(index)
        return member.scores.exists() and member.embeddings.exists()

    def _epochs_of(self, index: int) -> int:
        return len(metrics_log.read(self.folder.member(index).metrics))

    def _show(self, display: Display) -> None:
        active, waiting = self.active.values(), set(self.todo)
        ended = [i for i in self.missing if i not in waiting and i not in active]
        logs = [metrics_log.read(self.folder.member(i).metrics) for i in active]
        done = sum(self.epochs[i] for i in ended) + sum(map(len, logs))
        images = sum(log[-1].get(metrics_log.SPEED, 0) for log in logs if log)
        note = f"{len(ended)} members done, {len(logs)} running {speed(images)}"
        display.update(done, note.rstrip())


def train_members(
    plan: Ensemble,
    folder: RunFolder,
    cluster: Cluster,
    members_per_gpu: int,
    display: Display,
    on_finished: Callable[[int], None] = lambda index: None,
) -> None:
    """Train the members that `folder` lacks.

    Raises:
        ConfigError: If an existing member was trained with another plan.
    """
    recover_members(plan, folder, display)
    MemberQueue(plan, folder, cluster, members_per_gpu).run(display, on_finished)
