"""Actor that merges finished members while the others still train."""

from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from dmlray.cluster.error_messages import as_dmlray_error
from dmlray.cluster.resources import Cluster, current_cluster
from dmlray.errors import RunError
from dmlray.evaluation.clustering import prefix_clusterings
from dmlray.evaluation.incremental import MOST_IMAGES, Growing
from dmlray.evaluation.task import RetrievalTask
from dmlray.learn.device import device_of, set_threads
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import ProtocolConfig
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.run_report import write_ensemble
from dmlray.results.finished_runs import Member, ensemble_curve, joined, member_of, test_task
from dmlray.results.joint_thresholds import with_thresholds
from dmlray.scores import Scores

_TRIES = 3  # attempts, if nodes are lost

Curve = list[dict[str, float]]


class Merger:
    """Adds the members' embeddings in order; scores the ensemble at every size."""

    def __init__(
        self, task: RetrievalTask, protocol: ProtocolConfig, threads: int, gpu: bool
    ) -> None:
        set_threads(threads)
        self._device = device_of(gpu)
        self._task, self._protocol = task, protocol
        self._ensemble: Growing | None = None
        self._curve: Curve = []

    def add(self, members: list[Member]) -> Curve:
        """Add the members not added yet; return the scores of the first 1, 2, ..., L."""
        names, done = self._protocol.clustering_metrics, len(self._curve)
        if not self._ensemble:
            metrics = self._protocol.retrieval_metrics(self._task.neighbours)
            self._ensemble = Growing(self._task, metrics)
        rows = [member.embeddings() for member in members]
        clusterings = prefix_clusterings(rows, self._task.labels, names, first=done + 1)
        for member, clustered in zip(rows[done:], clusterings, strict=True):
            self._curve.append(self._ensemble.add(member) | clustered)
        return self._curve

    def at_once(self, members: list[Member]) -> Curve:
        """Return the same scores block by block, for more images than fit into memory in `add`."""
        return ensemble_curve(members, self._task, self._protocol, self._device)

    def with_thresholds(self, members: list[Member], scores: Scores) -> Scores:
        """Add the thresholds of all members to their scores."""
        return with_thresholds(scores, members, self._task, self._device)


class EnsembleMerge:
    """The driver's side: sends finished members to the merge actor in order of their numbers."""

    def __init__(self, plan: Ensemble, folder: RunFolder) -> None:
        self._plan, self._folder = plan, folder
        self._members: list[Member] = []
        self._merger: Any = None
        self._task: RetrievalTask | None = None

    def on_finished(self, index: int) -> None:
        """Merge the members that are next in order, now that member `index` is finished."""
        before = len(self._members)
        self._read()
        if len(self._members) > before and self._streams:
            self._start().add.remote(list(self._members))

    def finish(self) -> Scores:
        """Write and return the scores of the whole ensemble, with its curve over sizes."""
        self._read()
        lacking = self._plan.size - len(self._members)
        if lacking:
            raise RunError(f"{self._folder}: {lacking} members are not finished; resume the run")
        test_task(self._members)  # check that all have the same test set
        curve: Curve = self._ask("add" if self._streams else "at_once")
        seed = self._plan.experiment.seed
        joined_scores = replace(joined(self._members, curve[-1], []), curve=curve, seed=seed)
        scores: Scores = self._ask("with_thresholds", joined_scores)
        write_ensemble(self._folder, scores, self._plan.experiment.loggers)
        return scores

    @property
    def _streams(self) -> bool:
        return self._members[0].scores.test_images <= MOST_IMAGES

    def _read(self) -> None:
        """Read the finished members up to the first that is missing."""
        while len(self._members) < self._plan.size:
            member = self._folder.member(len(self._members))
            if not (member.scores.exists() and member.embeddings.exists()):
                return
            self._members.append(member_of(self._plan, self._folder, len(self._members)))

    def _ask(self, method: str, *arguments: Any) -> Any:
        """Let the merge actor call one of its methods on all members."""
        for _ in range(_TRIES):
            work = getattr(self._start(), method)
            try:
                return ray.get(work.remote(self._members, *arguments))
            except RayActorError:
                self._merger = None  # retry: the files still exist
            except RayTaskError as error:
                raise as_dmlray_error(error.cause) from None
        raise RunError("the merge actor died repeatedly")

    def _start(self) -> Any:
        if self._merger is None:
            if self._task is None:
                self._task = test_task(self._members)
            protocol = self._plan.experiment.protocol
            cpus, gpu = (0, False) if self._streams else _resources(current_cluster())
            actor = ray.remote(Merger).options(num_cpus=cpus, num_gpus=int(gpu))
            self._merger = actor.remote(self._task, protocol, max(1, cpus), gpu)
        return self._merger


def _resources(cluster: Cluster) -> tuple[int, bool]:
    """Return the CPU cores of a merger with a whole node or GPU, and whether it has a GPU.

    Raises:
        ResourceError: If it fits on no node.
    """
    gpu = cluster.has_gpus
    cpus = cluster.cpus_each(1, gpu)
    cluster.fit(cpus, float(gpu))
    return cpus, gpu


def merge_members(plan: Ensemble, folder: RunFolder) -> Scores:
    """Merge and score a finished ensemble from its members' files."""
    return EnsembleMerge(plan, folder).finish()
