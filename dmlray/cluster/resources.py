"""What each node of a cluster has, and how often a process fits: node by node, GPU by GPU."""

import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

from dmlray.errors import ResourceError

_GRAIN = 10_000  # Ray counts resources in ten-thousandths
_UNBOUNDED = 1_000_000  # processes that need nothing
PATIENCE = 120.0  # seconds without room: a node that comes back is waited for


class Location(NamedTuple):
    """Where a process runs: a node (its id and address) and its GPUs there."""

    node: str
    address: str
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        gpus = f"GPU {','.join(self.gpus)} of " if self.gpus else ""
        return f"{gpus}node {self.address} ({self.node[:6]})"


class Node(NamedTuple):
    """What one machine has to give."""

    cpus: float
    gpus: float
    id: str = ""

    def gpu_shares(self, gpus: float) -> int:
        """How many processes its GPUs hold, each on a part of one GPU or on whole ones."""
        whole = int(self.gpus)
        return whole * _times(1, gpus) if 0 < gpus < 1 else _times(whole, gpus)

    def holds(self, cpus: float, gpus: float) -> int:
        """How many processes of this size it has room for."""
        return min(_times(self.cpus, cpus), self.gpu_shares(gpus))


@dataclass(frozen=True)
class Cluster:
    """What Ray has to give, in all and on each machine."""

    cpus: float
    gpus: float
    nodes: int
    each: tuple[Node, ...] = ()

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "Cluster":
        """The cluster of these nodes."""
        each = tuple(nodes)
        return cls(sum(n.cpus for n in each), sum(n.gpus for n in each), len(each), each)

    @property
    def machines(self) -> tuple[Node, ...]:
        """Every living node; the whole where the nodes are not known."""
        return self.each or ((Node(self.cpus, self.gpus),) if self.nodes else ())

    @property
    def has_gpus(self) -> bool:
        return any(node.gpus >= 1 for node in self.machines)

    def count(self, cpus: float, gpus: float) -> int:
        """How many processes of this size run at once; each needs one node."""
        return sum(node.holds(cpus, gpus) for node in self.machines)

    def fit(self, cpus: float, gpus: float, wanted: int = 1) -> int:
        """How many processes of this size run at once.

        Raises:
            ResourceError: If fewer than `wanted` ever can.
        """
        count = self.count(cpus, gpus)
        if count < wanted:
            raise ResourceError(self.shortage(cpus, gpus, wanted))
        return count

    def shortage(self, cpus: float, gpus: float, wanted: int = 1) -> str:
        """What is asked for and what each node has."""
        size = f"{cpus:g} CPU and {gpus:g} GPU"
        if wanted == 1:
            return f"asked for {size} on one node, but the cluster has {self._inventory()}"
        return (
            f"asked for {wanted} processes of {size}, each on one node, but the cluster has "
            f"{self._inventory()}: enough for {self.count(cpus, gpus)}"
        )

    def cpus_each(self, processes: int, gpu: bool) -> int:
        """CPU cores for each of so many equal processes: the most with which all run at once.

        With a GPU each they take at most that GPU's share of its node's cores. At least 1, also
        where not even that fits.
        """
        per_node = [node.cpus / int(node.gpus) if gpu else node.cpus for node in self._hosts(gpu)]
        counts = range(int(max(per_node, default=0)), 1, -1)
        return next((c for c in counts if self.count(c, float(gpu)) >= processes), 1)

    def fair_cpus(self, gpus: float) -> float:
        """CPU cores of a process with this share of a GPU, so that every GPU can be used in full.

        Whole cores, or a part of one where there are too few; 1 without a GPU.
        """
        shares = [(node.cpus, node.gpu_shares(gpus)) for node in self._hosts(True)] if gpus else []
        fair = min((cpus / count for cpus, count in shares if count), default=1.0)
        return float(int(fair)) if fair >= 1 else int(fair * _GRAIN) / _GRAIN

    def without(self, locations: Collection[Location]) -> "Cluster":
        """What is left if these are not used: nodes, or some of their GPUs."""
        if not locations:
            return self
        nodes = {where.node for where in locations if not where.gpus}
        gpus = Counter(node for node, gpu in _gpus(locations))
        return Cluster.of(
            node._replace(gpus=node.gpus - gpus[node.id])
            for node in self.machines
            if node.id not in nodes
        )

    def _hosts(self, gpu: bool) -> list[Node]:
        return [node for node in self.machines if node.gpus >= 1 or not gpu]

    def _inventory(self) -> str:
        kinds = Counter((node.cpus, node.gpus) for node in self.machines)
        return (
            ", ".join(
                f"{cpus:g} CPU and {gpus:g} GPU on {f'each of {n} nodes' if n > 1 else 'one node'}"
                for (cpus, gpus), n in kinds.items()
            )
            or "no node"
        )


class Patience:
    """Notices that there has been no room for a while, as after the loss of a node."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def is_over(self, room: int) -> bool:
        """Whether there was no room at any call for so many seconds."""
        now = time.monotonic()
        if room:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= self._seconds


def current_cluster() -> Cluster:
    """What the nodes that live now have; a lost one no longer counts, a new one does."""
    return Cluster.of(node_of(node) for node in ray.nodes() if node["Alive"])


def node_of(found: dict[str, Any]) -> Node:
    """One of `ray.nodes()`."""
    has = found["Resources"]
    return Node(has.get("CPU", 0.0), has.get("GPU", 0.0), found.get("NodeID", ""))


def locate() -> Location:
    """Where this process is."""
    context = ray.get_runtime_context()
    gpus = tuple(context.get_accelerator_ids().get("GPU", ()))
    return Location(context.get_node_id(), ray.util.get_node_ip_address(), gpus)


def _times(has: float, needs: float) -> int:
    """How often `needs` goes into `has`, as Ray counts; without bound where nothing is needed."""
    grains = round(needs * _GRAIN)
    return round(has * _GRAIN) // grains if grains else _UNBOUNDED


def _gpus(locations: Iterable[Location]) -> set[tuple[str, str]]:
    return {(where.node, gpu) for where in locations for gpu in where.gpus}
