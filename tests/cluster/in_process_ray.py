"""Fake of Ray for an actor pool: actors in this process, on nodes that are only numbers."""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from ray.exceptions import ActorDiedError, RayTaskError

from dmlray.cluster.resources import Cluster, Location, Node

Work = Callable[["Actor", str, int], Any]  # (actor, "train" or "probe", member) -> result


@dataclass(eq=False)
class Actor:
    """Runs each task immediately; `memory` is the state of its process."""

    ray: "InProcessRay"
    where: Location
    size: tuple[float, float]
    memory: dict[str, Any] = field(default_factory=dict)
    alive: bool = True

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *given: Reference(lambda: self._run(name, given)))

    def _run(self, name: str, given: tuple[Any, ...]) -> Any:
        if name == "__ray_call__":
            return self.where, self.ray.unusable.get((self.where.node, *self.where.gpus), "")
        member = int(given[1].path.name)
        self.ray.log.append((name, member, self.where))
        return self.ray.work(self, name, member)


class Reference:
    def __init__(self, run: Callable[[], Any]) -> None:
        try:
            self.result, self.error = run(), None
        except Exception as error:
            self.result, self.error = None, error


class InProcessRay:
    """Assigns the first free cores and GPUs, and logs each task with its location."""

    def __init__(self, nodes: list[tuple[float, float]], work: Work) -> None:
        self.nodes = [Node(*node, f"node{n}") for n, node in enumerate(nodes)]
        self.unusable: dict[tuple[str, ...], str] = {}  # GPUs, and why torch cannot use them
        self.work, self.log, self.actors = work, list[tuple[str, int, Location]](), list[Actor]()

    def current_cluster(self) -> Cluster:
        return Cluster.of(self.nodes)

    def remote(self, _: type) -> Any:
        return SimpleNamespace(
            options=lambda **size: SimpleNamespace(remote=lambda: self._start(**size))
        )

    def wait(self, references: list[Reference], **_: Any) -> tuple[list[Reference], list[Any]]:
        return references, []

    def get(self, reference: Reference) -> Any:
        error = reference.error
        if isinstance(error, ActorDiedError):
            raise error
        if error is not None:
            raise RayTaskError("work", f"{type(error).__name__}: {error}", error)
        return reference.result

    def kill(self, actor: Actor) -> None:
        actor.alive = False

    def _start(
        self, num_cpus: float, num_gpus: float, max_restarts: int, label_selector: Any = None
    ) -> Actor:
        excluded = (label_selector or {}).get("ray.io/node-id", "")
        for node in self.nodes:
            if node.id in excluded:
                continue
            here = [a for a in self.actors if a.alive and a.where.node == node.id]
            if sum(actor.size[0] for actor in here) + num_cpus > node.cpus + 1e-6:
                continue
            for gpu in [str(n) for n in range(int(node.gpus))] if num_gpus else [None]:
                used = sum(actor.size[1] for actor in here if gpu in actor.where.gpus)
                if gpu is None or used + num_gpus < 1 + 1e-6:
                    where = Location(node.id, node.id, (gpu,) if gpu else ())
                    self.actors.append(Actor(self, where, (num_cpus, num_gpus)))
                    return self.actors[-1]
        raise AssertionError("more was requested than there is")
