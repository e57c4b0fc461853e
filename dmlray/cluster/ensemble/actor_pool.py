"""Pool of actors, each with a share of a GPU or a CPU core, that train members one by one.

The driver starts as many actors as fit on the living nodes. An actor gets a member only once its
process runs, so that no member waits for a node that is lost or never starts.
"""

import time
from collections.abc import Iterator, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray
from ray.exceptions import OutOfMemoryError, RayActorError

from dmlray.cluster.resources import Cluster, Location, locate
from dmlray.errors import ConfigError, ResourceError, UnfinishedRunError

_MOST_MEMBERS_PER_GPU = 100
_GIB = 1 << 30
_GRAIN = 10_000  # Ray counts resources in ten-thousandths
USABLE = 0.95  # of a GPU's memory, for fragmentation of several allocators
_STARTS = 3  # failed starts in a row that end the ensemble
_NOWHERE = Location("", "")


class Memory(NamedTuple):
    """GPU memory in bytes of one member, with its CUDA context, and of the whole GPU."""

    member: int
    device: int

    def fits(self) -> int:
        """Return how many such members fit on a GPU."""
        return int(USABLE * self.device // max(1, self.member))

    def check_fits(self, members: int) -> None:
        """Check that `members` fit on a GPU.

        Raises:
            ResourceError: If they do not.
        """
        if self.fits() < members:
            raise ResourceError(
                f"`members_per_gpu`: {members} members of {self.member / _GIB:.1f} GiB do not fit "
                f"a GPU of {self.device / _GIB:.1f} GiB. Allowed: at most {max(1, self.fits())}; "
                "resume the run with fewer"
            )


@dataclass(frozen=True)
class Share:
    """Resources of an actor: a part of a GPU, or a CPU core if `members_per_gpu` is 0."""

    cpus: float
    members_per_gpu: int

    @property
    def gpus(self) -> float:
        """Part of a GPU, rounded down so that all parts fit."""
        return _GRAIN // self.members_per_gpu / _GRAIN if self.members_per_gpu else 0.0

    def capacity(self, cluster: Cluster) -> int:
        """Return how many actors of this size fit on the living nodes."""
        return cluster.count(self.cpus, self.gpus)

    def out_of_memory(self) -> str:
        """Return the message for a member without enough memory."""
        members, smaller = self.members_per_gpu, "use a smaller data.batch_size in a new run"
        if not members:
            return f"out of memory: {smaller}"
        if members == 1:
            return f"out of memory with one member per GPU: {smaller}"
        fewer = f"resume the run with `members_per_gpu` {members // 2}"
        return f"out of memory with {members} members per GPU as well: {fewer}"


def share_of(cluster: Cluster, members_per_gpu: int) -> Share:
    """Return the resources of an actor: part of a GPU and of its node's cores, or a CPU core.

    Raises:
        ConfigError: If the number of members is not allowed.
        ResourceError: If not even one actor fits on the cluster.
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
    """An actor, its resources, and its location once its process runs."""

    actor: Any
    share: Share
    where: Location = _NOWHERE


class ActorPool:
    """The driver's actors: starting, idle, or busy with a member.

    Args:
        unused: Locations not to use, read at each call. An actor that starts on such a GPU is kept
            idle, so that Ray gives the GPU to no other actor; on such a node none is started.
    """

    def __init__(self, actor: type, unused: Set[Location] = frozenset()) -> None:
        self._class, self._unused = ray.remote(actor), unused
        self._starting: dict[Any, ActorHandle] = {}
        self._idle: list[ActorHandle] = []
        self._busy: dict[Any, ActorHandle] = {}
        self._failed_starts = 0
        self.unfit: dict[Location, str] = {}  # and why actors cannot work there

    @property
    def busy(self) -> int:
        """The number of actors that are training."""
        return len(self._busy)

    def scale_to(self, share: Share, capacity: int, wanted: int) -> None:
        """Start or release actors, for `wanted` waiting members and at most `capacity` in total."""
        free = [*self._starting.values(), *self._idle]
        self._release([actor for actor in free if actor.share != share])
        spare = len(self._ready()) + len(self._busy) - capacity
        self._release(self._ready()[: max(0, spare)])
        lacking = min(wanted, capacity - len(self._busy)) - len(self._ready())
        for _ in range(lacking):
            self._start(share)

    def idle(self, share: Share) -> list[ActorHandle]:
        """Return the idle actors of this size."""
        return [actor for actor in self._usable() if actor.share == share]

    def is_elsewhere(self, where: Location) -> bool:
        """Return whether other locations have usable actors."""
        return any(actor.where != where for actor in [*self._usable(), *self._busy.values()])

    def assign(self, actor: ActorHandle, reference: Any) -> None:
        """Mark an idle actor as busy with the task `reference`."""
        self._idle.remove(actor)
        self._busy[reference] = actor

    def wait(self, seconds: float) -> Iterator[tuple[Any, ActorHandle]]:
        """Yield (reference, actor) of all finished tasks, after at most `seconds` seconds.

        The caller returns the actor with `free` if its process is usable.

        Raises:
            UnfinishedRunError: If actors repeatedly fail to start.
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
        """Mark an actor as idle."""
        self._idle.append(actor)

    def kill(self, actor: ActorHandle) -> None:
        """Kill an actor whose process or node is lost or unreachable, so that it writes no more."""
        ray.kill(actor.actor)

    def close(self) -> None:
        """Kill all actors with their tasks."""
        self._release([*self._starting.values(), *self._idle, *self._busy.values()])
        self._busy.clear()

    def _start(self, share: Share) -> None:
        options: dict[str, Any] = {"num_cpus": share.cpus, "num_gpus": share.gpus}
        if nodes := {where.node for where in self._unused if not where.gpus}:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(nodes))})"}
        actor = ActorHandle(self._class.options(**options, max_restarts=0).remote(), share)
        self._starting[actor.actor.__ray_call__.remote(_inspect)] = actor

    def _started(self, reference: Any) -> None:
        actor = self._starting.pop(reference)
        try:
            actor.where, problem = ray.get(reference)
        except (RayActorError, OutOfMemoryError) as error:  # its node was lost, or lacks memory
            self._failed_starts += 1
            if self._failed_starts >= _STARTS:
                reason = str(error).strip().split("\n")[-1].strip()
                raise UnfinishedRunError(
                    f"actors do not start, see `dmlray doctor`: {reason}"
                ) from error
            return
        self._failed_starts = 0
        self._idle.append(actor)
        if problem:
            self.unfit[actor.where] = problem

    def _usable(self) -> list[ActorHandle]:
        excluded = self._unused | self.unfit.keys()
        return [actor for actor in self._idle if actor.where not in excluded]

    def _ready(self) -> list[ActorHandle]:
        return [*self._starting.values(), *self._usable()]

    def _release(self, actors: list[ActorHandle]) -> None:
        for actor in actors:
            ray.kill(actor.actor)
        killed = set(actors)
        self._starting = {r: actor for r, actor in self._starting.items() if actor not in killed}
        self._idle = [actor for actor in self._idle if actor not in killed]


def _inspect(actor: Any) -> tuple[Location, str]:
    """Run in an actor; return its location and why it cannot work there, or ""."""
    return locate(), getattr(actor, "problem", "")
