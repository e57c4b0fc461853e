"""Ray Train for a fixed number of workers that use torch.

Departs: Ray's `TorchTrainer` replaces a backend that is left open by NCCL alone, which cannot send
CPU tensors, imports torch in the controller as well, and starts three more processes per training:
a manager of Ray Data's data sets, the coordinator of requests to the autoscaler, which sees the
workers' placement group in any case, and a process that frees this group if the controller dies:
it ends with the command, that of a trial by `fold_trainer.release`, which needs no dashboard.
Its `fit` can only be interrupted in the main thread.
"""

from typing import Any

import ray
from ray._common.constants import RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR
from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import get_env_vars_to_propagate
from ray.train.v2._internal.execution.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

_NOT_NEEDED = (DatasetsCallback, PlacementGroupCleanerCallback)
_ABORT_TIMEOUT = 5.0  # seconds


class Trainer(DataParallelTrainer):  # type: ignore[misc]  # Ray has no types
    """A trainer whose `backend_config` is a `TorchBackendConfig`.

    Whatever `train_loop_per_worker` needs is best bound to it by `functools.partial`: the
    controller unpickles `train_loop_config`, but not the function.
    """

    _controller: Any = None
    _stopped = False

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, _NOT_NEEDED)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        variables = {
            RAY_WARN_BLOCKING_GET_INSIDE_ASYNC_ENV_VAR: "0",
            **get_env_vars_to_propagate(),
        }
        actor = ray.remote(
            num_cpus=0, scheduling_strategy=here, runtime_env={"env_vars": variables}
        )(TrainController)
        policy = _WithoutCoordinator(self.scaling_config)
        self._controller = actor.remote(**{**parts, "scaling_policy": policy})
        if self._stopped:
            self._controller = None  # without a handle its process ends
            raise RuntimeError("stopped before it began")
        ray.get(self._controller.run.remote())
        return ray.get(self._controller.get_result.remote())

    def stop(self) -> None:
        """End the workers and free their resources; `fit`, in another thread, raises an error."""
        self._stopped = True
        if controller := self._controller:
            ray.wait([controller.abort.remote()], timeout=_ABORT_TIMEOUT)
            ray.kill(controller)


class _WithoutCoordinator(FixedScalingPolicy):  # type: ignore[misc]
    def after_controller_start(self, train_run_context: Any) -> None:
        """Request nothing from Ray's autoscaling coordinator."""

    def _maybe_send_resource_request(self) -> None: ...
