"""Resources of a cluster's nodes, and how many processes fit on them, node by node."""

import time
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import ray

from dmlray.errors import ResourceError

_GRAIN = 10_000  # Ray counts resources in ten-thousandths
_UNBOUNDED = 1_000_000  # number of processes that need nothing
PATIENCE = 120.0  # seconds to wait for a lost node to return


class Location(NamedTuple):
    """Node (id and address) and GPUs of a process."""

    node: str
    address: str
    gpus: tuple[str, ...] = ()

    def __str__(self) -> str:
        gpus = f"GPU {','.join(self.gpus)} of " if self.gpus else ""
        return f"{gpus}node {self.address} ({self.node[:6]})"


class Node(NamedTuple):
    """Resources of one machine."""

    cpus: float
    gpus: float
    id: str = ""
    accelerator: str = ""  # Ray's name of its GPUs, such as H100

    def gpu_shares(self, gpus: float) -> int:
        """Return how many processes fit on its GPUs, each on a part of a GPU or on whole ones."""
        whole = int(self.gpus)
        return whole * _times(1, gpus) if 0 < gpus < 1 else _times(whole, gpus)

    def holds(self, cpus: float, gpus: float) -> int:
        """Return how many processes of this size fit."""
        return min(_times(self.cpus, cpus), self.gpu_shares(gpus))


@dataclass(frozen=True)
class Cluster:
    """Resources of a cluster, in total and of each node."""

    cpus: float
    gpus: float
    nodes: int
    each: tuple[Node, ...] = ()

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "Cluster":
        """Make a cluster of these nodes."""
        each = tuple(nodes)
        return cls(sum(n.cpus for n in each), sum(n.gpus for n in each), len(each), each)

    def __str__(self) -> str:
        """Describe it in a few words, such as "4 GPUs (H100), 64 CPU cores on 2 nodes"."""
        names = sorted({node.accelerator for node in self.each if node.accelerator})
        named = f" ({', '.join(names)})" if names else ""
        gpus = f"{self.gpus:g} GPU{'s' * (self.gpus != 1)}{named}, " if self.gpus else ""
        cores = f"{self.cpus:g} CPU core{'s' * (self.cpus != 1)}"
        nodes = f" on {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{gpus}{cores}{nodes}{'' if gpus else ', no GPU'}"

    @property
    def machines(self) -> tuple[Node, ...]:
        """Every living node; one with the total if the nodes are not known."""
        return self.each or ((Node(self.cpus, self.gpus),) if self.nodes else ())

    @property
    def has_gpus(self) -> bool:
        """Whether any node has a whole GPU."""
        return any(node.gpus >= 1 for node in self.machines)

    def count(self, cpus: float, gpus: float) -> int:
        """Return how many processes of this size fit at once, each on one node."""
        return sum(node.holds(cpus, gpus) for node in self.machines)

    def fit(self, cpus: float, gpus: float, wanted: int = 1) -> int:
        """Return how many processes of this size fit at once.

        Raises:
            ResourceError: If fewer than `wanted` fit.
        """
        count = self.count(cpus, gpus)
        if count < wanted:
            raise ResourceError(self.shortage(cpus, gpus, wanted))
        return count

    def shortage(self, cpus: float, gpus: float, wanted: int = 1) -> str:
        """Describe the requested resources and those of each node."""
        size = f"{cpus:g} CPU and {gpus:g} GPU"
        if wanted == 1:
            return f"asked for {size} on one node, but the cluster has {self._inventory()}"
        return (
            f"asked for {wanted} processes of {size}, each on one node, but the cluster has "
            f"{self._inventory()}: enough for {self.count(cpus, gpus)}"
        )

    def cpus_each(self, processes: int, gpu: bool) -> int:
        """Return the largest number of CPU cores with which `processes` equal ones fit at once.

        With a GPU each, at most that GPU's share of its node's cores. At least 1, even if that
        does not fit.
        """
        per_node = [node.cpus / int(node.gpus) if gpu else node.cpus for node in self._hosts(gpu)]
        counts = range(int(max(per_node, default=0)), 1, -1)
        return next((c for c in counts if self.count(c, float(gpu)) >= processes), 1)

    def fair_cpus(self, gpus: float) -> float:
        """Return CPU cores of a process with this share of a GPU that let all GPUs be used fully.

        Whole cores, or a part of one if there are too few; 1 without a GPU.
        """
        shares = [(node.cpus, node.gpu_shares(gpus)) for node in self._hosts(True)] if gpus else []
        fair = min((cpus / count for cpus, count in shares if count), default=1.0)
        return float(int(fair)) if fair >= 1 else int(fair * _GRAIN) / _GRAIN

    def without(self, locations: Collection[Location]) -> "Cluster":
        """Return the cluster without these locations: nodes, or some of their GPUs."""
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
    """Timeout of a cluster without sufficient resources, as after the loss of a node."""

    def __init__(self, seconds: float = PATIENCE) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def is_over(self, capacity: int) -> bool:
        """Return whether `capacity` was 0 in all calls of the last `seconds` seconds."""
        now = time.monotonic()
        if capacity:
            self._since = None
        elif self._since is None:
            self._since = now
        return self._since is not None and now - self._since >= self._seconds


def current_cluster() -> Cluster:
    """Return the resources of the nodes that are alive now."""
    return Cluster.of(node_of(node) for node in ray.nodes() if node["Alive"])


def node_of(entry: dict[str, Any]) -> Node:
    """Convert an entry of `ray.nodes()`."""
    has = entry["Resources"]
    kinds = (name.partition(":")[2] for name in has if name.startswith("accelerator_type:"))
    cpus, gpus = has.get("CPU", 0.0), has.get("GPU", 0.0)
    return Node(cpus, gpus, entry.get("NodeID", ""), ", ".join(kinds))


def locate() -> Location:
    """Return the location of this process."""
    context = ray.get_runtime_context()
    gpus = tuple(context.get_accelerator_ids().get("GPU", ()))
    return Location(context.get_node_id(), ray.util.get_node_ip_address(), gpus)


def _times(has: float, needs: float) -> int:
    """Return how often `needs` fits into `has`, as Ray counts; unbounded for 0."""
    grains = round(needs * _GRAIN)
    return round(has * _GRAIN) // grains if grains else _UNBOUNDED


def _gpus(locations: Iterable[Location]) -> set[tuple[str, str]]:
    return {(where.node, gpu) for where in locations for gpu in where.gpus}
