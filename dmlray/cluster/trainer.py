"""Ray Train for a fixed number of workers that use torch.

Departs: Ray's `TorchTrainer` replaces a backend that is left open by NCCL alone, which cannot send
CPU tensors, imports torch in the controller as well, and starts three more processes per training:
a manager of Ray Data's data sets, the coordinator of requests to the autoscaler, which sees the
workers' placement group in any case, and a process that frees this group if the controller dies:
it ends with the command, that of a trial by `fold_trainer.release`, which needs no dashboard.
"""

from typing import Any

from ray.train.v2._internal.callbacks.datasets import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

_NOT_NEEDED = (DatasetsCallback, PlacementGroupCleanerCallback)


class Trainer(DataParallelTrainer):  # type: ignore[misc]  # Ray has no types
    """A trainer whose `backend_config` is a `TorchBackendConfig`.

    Whatever `train_loop_per_worker` needs is best bound to it by `functools.partial`: the
    controller unpickles `train_loop_config`, but not the function.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()
        return [callback for callback in callbacks if not isinstance(callback, _NOT_NEEDED)]

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        policy = _WithoutCoordinator(self.scaling_config)
        return super()._initialize_and_run_controller(**{**parts, "scaling_policy": policy})


class _WithoutCoordinator(FixedScalingPolicy):  # type: ignore[misc]
    def after_controller_start(self, train_run_context: Any) -> None:
        """Request nothing from Ray's autoscaling coordinator."""

    def _maybe_send_resource_request(self) -> None: ...
