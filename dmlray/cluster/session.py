"""Find or start Ray, and leave it cleanly whatever happens."""

import logging
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import ray

from dmlray.cluster.address import read_address
from dmlray.cluster.join import joined
from dmlray.cluster.local_ray import started
from dmlray.cluster.ray_environment import set_defaults
from dmlray.errors import Interrupted, ResourceError
from dmlray.interrupts import Interrupts, interruptible


class Node(NamedTuple):
    """What one machine has to give."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Cluster:
    """What Ray has to give, in all and on each machine."""

    cpus: float
    gpus: float
    nodes: int
    each: tuple[Node, ...] = ()

    @property
    def machines(self) -> tuple[Node, ...]:
        """Every living node; the whole where nobody said what each has."""
        return self.each or (Node(self.cpus, self.gpus),)

    def cpus_of_one_job(self, gpu: bool) -> int:
        """CPU cores for a training that runs alone: its fair share of a node's GPUs, or a node."""
        node = self.cpus / self.nodes
        return max(1, int(node / max(1.0, self.gpus / self.nodes) if gpu else node))

    def fit(self, cpus: float, gpus: float) -> int:
        """How many jobs of this size run at once.

        Raises:
            ResourceError: If not even one ever can.
        """
        counts = [int(self.cpus / cpus + 1e-9) if cpus else 10**6]
        counts += [int(self.gpus / gpus + 1e-9)] if gpus else []
        if min(counts) < 1:
            raise ResourceError(
                f"asked for {cpus:g} CPU and {gpus:g} GPU at once, "
                f"but the cluster has {self.cpus:g} CPU and {self.gpus:g} GPU in all"
            )
        return min(counts)


@contextmanager
def session(address: str | None = None) -> Iterator[Cluster]:
    """Join the cluster at `address` or RAY_ADDRESS, or start Ray here; yield what it has.

    A Ray that this process uses already is used, and left as it is.

    Raises:
        ConfigError: If the address is none, or the token for it does not serve.
        ResourceError: If Ray cannot be reached or started.
        Interrupted: From the block, in which it is a KeyboardInterrupt, on a signal.
    """
    set_defaults()
    with interruptible() as signals:
        try:
            with signals.in_ray(), _ray(address, signals):
                yield living()
        except KeyboardInterrupt:
            raise Interrupted(signals.received or signal.SIGINT) from None


@contextmanager
def _ray(address: str | None, signals: Interrupts) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    with ExitStack() as stack:
        with signals.held():  # half a Ray could be neither used nor ended
            cluster = read_address(address)
            stack.enter_context(joined(cluster) if cluster else started())
        try:
            yield
        finally:
            with signals.held():
                stack.close()


def living() -> Cluster:
    """What the nodes that live now have; a lost one no longer counts, a new one does."""
    found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    each = tuple(Node(node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in found)
    return Cluster(sum(n.cpus for n in each), sum(n.gpus for n in each), len(each), each)
