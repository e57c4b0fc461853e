"""Callbacks that end a Ray Train run instead of restarting it."""

from typing import Any

from ray.train import UserCallback
from ray.train.v2._internal.execution.callback import ControllerCallback

from dmlray.cluster.resources import Patience, current_cluster
from dmlray.errors import DmlrayError, ResourceError


class FailOnUserError(UserCallback):  # type: ignore[misc]  # Ray has no types
    """Ends the run at a DmlrayError of any worker, which a restart cannot fix.

    The error raised here becomes the run's failure (`error_messages.of_worker`).
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raise a worker's DmlrayError instead of restarting."""
        for error in worker_exceptions.values():
            if isinstance(error, DmlrayError):
                raise error


class FailWithoutResources(ControllerCallback):  # type: ignore[misc]
    """Ends the run if its workers do not fit on the living nodes for `PATIENCE` seconds.

    Ray Train alone would wait for a lost node for ever.
    """

    def __init__(self, workers: int, cpus: float, gpus: float) -> None:
        self._workers, self._cpus, self._gpus = workers, cpus, gpus
        self._patience = Patience()

    def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
        """Raise an error if the cluster has been too small for too long."""
        cluster = current_cluster()
        capacity = cluster.count(self._cpus, self._gpus) // self._workers
        if self._patience.is_over(capacity):
            shortage = cluster.shortage(self._cpus, self._gpus, self._workers)
            raise ResourceError(f"a node was lost: {shortage}")
