"""Slots: actors that hold one share of a GPU, or one CPU core, and train member after member.

The driver hires as many as the living cluster has room for. A slot gets a member only once its
process is up, so that no member waits for a machine that is lost or was promised and never came.
"""

import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayActorError

from dmlray.cluster.resources import Cluster, Location, locate
from dmlray.errors import ConfigError, ResourceError, RunError

_MOST_MEMBERS_PER_GPU = 100
_GIB = 1 << 30
_GRAIN = 10_000  # Ray counts resources in ten-thousandths
USABLE = 0.95  # of a GPU's memory: allocators of neighbours leave gaps
_STARTS = 3  # in a row that may fail
_NOWHERE = Location("", "")


class Memory(NamedTuple):
    """Bytes that one member needs of a GPU, its CUDA context included, and what the GPU has."""

    member: int
    device: int

    def fits(self) -> int:
        """How many such members a GPU holds."""
        return int(USABLE * self.device // max(1, self.member))

    def check_fits(self, members: int) -> None:
        """Check that a GPU holds so many.

        Raises:
            ResourceError: If it does not.
        """
        if self.fits() < members:
            raise ResourceError(
                f"`members_per_gpu`: {members} members of {self.member / _GIB:.1f} GiB do not fit "
                f"a GPU of {self.device / _GIB:.1f} GiB. Allowed: at most {max(1, self.fits())}; "
                "resume the run with fewer"
            )


@dataclass(frozen=True)
class Share:
    """What a slot takes: a part of a GPU, or a CPU core where `members_per_gpu` is 0."""

    cpus: float
    members_per_gpu: int

    @property
    def gpus(self) -> float:
        """Rounded down, so that all shares of a GPU fit."""
        return _GRAIN // self.members_per_gpu / _GRAIN if self.members_per_gpu else 0.0

    def capacity(self, cluster: Cluster) -> int:
        """How many slots of this size the living nodes hold at once."""
        return cluster.count(self.cpus, self.gpus)

    def out_of_memory(self) -> str:
        """What a member ran out of, and what to give."""
        members, smaller = self.members_per_gpu, "give a smaller data.batch_size, in a new run"
        if not members:
            return f"out of memory: {smaller}"
        if members == 1:
            return f"out of memory on a GPU of its own: {smaller}"
        fewer = f"resume the run with `members_per_gpu` {members // 2}"
        return f"out of memory with {members} members per GPU as well: {fewer}"


def share_of(cluster: Cluster, members_per_gpu: int) -> Share:
    """A part of a GPU, with a fair part of its machine's cores, where there are GPUs.

    Raises:
        ConfigError: If the number of members is nonsense.
        ResourceError: If the cluster cannot hold even one slot.
    """
    if not 1 <= members_per_gpu <= _MOST_MEMBERS_PER_GPU:
        allowed = f"Allowed: 1 to {_MOST_MEMBERS_PER_GPU}"
        raise ConfigError("`members_per_gpu`", [f"{members_per_gpu} is not allowed. {allowed}"])
    gpus = Share(0.0, members_per_gpu).gpus if cluster.has_gpus else 0.0
    share = Share(cluster.fair_cpus(gpus), members_per_gpu if gpus else 0)
    cluster.fit(share.cpus, share.gpus)
    return share


@dataclass(eq=False)
class ActorHandle:
    """A slot's handle, the share that it holds, and where it is, once it is up."""

    actor: Any
    share: Share
    where: Location = _NOWHERE


class ActorPool:
    """The driver's side: slots that start, wait for a member, or train one.

    Args:
        unused: Where no slot gets a member, as it is at each call. One that starts on such a GPU
            is kept, so that Ray gives the GPU to no other; on such a node none is started.
    """

    def __init__(self, actor: type, unused: Set[Location] = frozenset()) -> None:
        self._class, self._unused = ray.remote(actor), unused
        self._starting: dict[Any, ActorHandle] = {}
        self._idle: list[ActorHandle] = []
        self._busy: dict[Any, ActorHandle] = {}
        self._failed_starts = 0
        self.unfit: dict[Location, str] = {}  # and why no slot can work there

    @property
    def busy(self) -> int:
        return len(self._busy)

    def scale_to(self, share: Share, room: int, wanted: int) -> None:
        """Hire for `wanted` waiting members as far as there is room; let go what has no place."""
        resting = [*self._starting.values(), *self._idle]
        self._release([actor for actor in resting if actor.share != share])
        spare = len(self._ready()) + len(self._busy) - room
        self._release(self._ready()[: max(0, spare)])
        lacking = min(wanted, room - len(self._busy)) - len(self._ready())
        for _ in range(lacking):
            self._start(share)

    def idle(self, share: Share) -> list[ActorHandle]:
        """Slots of this size that are up and free."""
        return [actor for actor in self._usable() if actor.share == share]

    def is_elsewhere(self, where: Location) -> bool:
        """Whether other locations have slots that get members."""
        return any(actor.where != where for actor in [*self._usable(), *self._busy.values()])

    def assign(self, actor: ActorHandle, reference: Any) -> None:
        """A slot that was idle works on what `reference` will be."""
        self._idle.remove(actor)
        self._busy[reference] = actor

    def wait(self, seconds: float) -> Iterator[tuple[Any, ActorHandle]]:
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

    def free(self, actor: ActorHandle) -> None:
        """The slot lives and may train another member."""
        self._idle.append(actor)

    def kill(self, actor: ActorHandle) -> None:
        """The slot's process or node is lost, or out of reach: it must not write any more."""
        ray.kill(actor.actor)

    def close(self) -> None:
        """End all slots, and what they do."""
        self._release([*self._starting.values(), *self._idle, *self._busy.values()])
        self._busy.clear()

    def _start(self, share: Share) -> None:
        options: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus}
        if nodes := {where.node for where in self._unused if not where.gpus}:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"}
        actor = ActorHandle(self._class.options(**options, max_restarts=0).remote(), share)
        self._starting[actor.actor.__ray_call__.remote(_look)] = actor

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            actor.where, problem = ray.get(reference)
        except RayActorError as error:  # its node was lost, or lacks what a slot needs
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                reason = str(error).strip().split("\n")[-1].strip()
                raise RunError(f"slots do not start, see `dmlray doctor`: {reason}") from error
            return
        self._failed_starts = 0
        self._idle.append(actor)
        if problem:
            self.unfit[actor.where] = problem

    def _usable(self) -> list[ActorHandle]:
        out = self._unused | self.unfit.keys()
        return [actor for actor in self._idle if actor.where not in out]

    def _ready(self) -> list[ActorHandle]:
        return [*self._starting.values(), *self._usable()]

    def _release(self, actors: list[ActorHandle]) -> None:
        for actor in actors:
            ray.kill(actor.actor)
        gone = set(actors)
        self._starting = {r: actor for r, actor in self._starting.items() if actor not in gone}
        self._idle = [actor for actor in self._idle if actor not in gone]


def _look(actor: Any) -> tuple[Location, str]:
    """Runs in a slot: where it is, and what keeps it from working there."""
    return locate(), getattr(actor, "problem", "")
