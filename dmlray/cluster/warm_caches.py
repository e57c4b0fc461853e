"""Fill the image caches of all nodes that train, in parallel, before the training."""

from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dmlray.cluster.resources import node_of
from dmlray.errors import DataError, DmlrayError
from dmlray.learn.preflight import preflight
from dmlray.plans.experiment import Experiment
from dmlray.reporting.progress import Display


def fill_caches(plan: Experiment, display: Display, cpus: float, gpus: float) -> None:
    """Check the plan's data on the other nodes and decode them there, as was done here.

    Args:
        plan: Experiment whose data are needed.
        display: Where progress is shown.
        cpus: CPUs of one process; a node on which it does not fit is not used.
        gpus: GPUs of one process, likewise.

    Raises:
        DataError: If a node cannot find, read or cache the images; names the node.
    """
    here = ray.get_runtime_context().get_node_id()
    others = [node for node in nodes_that_train(ray.nodes(), cpus, gpus) if node["NodeID"] != here]
    fill = ray.remote(num_cpus=0)(_fill)
    filling = {_on(node["NodeID"], fill).remote(plan): node["NodeName"] for node in others}
    if filling:
        display.start("decoding images on other nodes", len(filling))
    waiting = list(filling)
    while waiting:
        done, waiting = ray.wait(waiting, timeout=0.5)
        for reference in done:
            _check(filling[reference], reference)
        display.update(len(filling) - len(waiting))


def nodes_that_train(nodes: list[dict[str, Any]], cpus: float, gpus: float) -> list[dict[str, Any]]:
    """Return the `ray.nodes()` that are alive and fit a process of this size."""
    return [node for node in nodes if node["Alive"] and node_of(node).holds(cpus, gpus)]


def _fill(plan: Experiment) -> str | None:
    """Run preflight on the node; return the problem, as raising it would add a traceback."""
    try:
        preflight(plan)
    except DmlrayError as error:
        return str(error)
    return None


def _on(node: str, task: ray.remote_function.RemoteFunction) -> ray.remote_function.RemoteFunction:
    return task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))


def _check(node: str, reference: ray.ObjectRef) -> None:
    try:
        problem = ray.get(reference)
    except RayError:  # the node is lost; its trainings run on others
        return
    if problem:
        error = DataError(f"node {node}")
        error.args = (f"{error}: {problem}",)  # its lines are escaped already
        raise error
