"""Train the folds of one trial on Ray Train workers, in lockstep."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig, get_context
from ray.util import get_current_placement_group, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup

from dmlray.atomic_files import write_text
from dmlray.cluster.background import run_watched
from dmlray.cluster.error_messages import as_dmlray_error
from dmlray.cluster.torch_backend import TorchBackendConfig
from dmlray.cluster.trainer import Trainer
from dmlray.errors import DmlrayError, RunError, StorageError
from dmlray.learn import metrics_log
from dmlray.learn.cross_validation import Clock, fold_epochs, mean_over_folds
from dmlray.learn.device import device_of, loader_threads, set_threads
from dmlray.learn.loop import Epoch, Report
from dmlray.learn.metrics_log import SPEED
from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder

_GROUP = "placement_group"  # file in a trial's folder with the id of its workers' resources


def train_folds(
    plan: Experiment, folder: RunFolder, report: Report, workers: int, cpus: float, gpus: float
) -> None:
    """Train all folds of `plan` on `workers` workers; report each epoch of the metrics log.

    Ray's queue from Train to Tune may lose an epoch on a busy machine, and a trial without its last
    epoch would count as pruned.

    Raises:
        DmlrayError: Of a worker.
    """
    past, reported = metrics_log.read(folder.metrics), 0
    metrics_log.rewind(folder.metrics, 0)

    def poll() -> None:
        nonlocal reported
        for line in metrics_log.read(folder.metrics)[reported:]:
            reported += 1
            report(Epoch(line.pop("epoch"), line))

    trainer = Trainer(
        partial(_loop, plan, folder, past, threads=max(1, int(cpus)), gpu=gpus > 0),
        backend_config=TorchBackendConfig("gloo"),  # folds may share a GPU, which NCCL refuses
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        run_config=RunConfig(
            name="folds",
            storage_path=str(folder.ray),
            failure_config=FailureConfig(max_failures=0),  # Tune restarts the whole trial
        ),
    )
    result = run_watched(trainer.fit, trainer.stop, poll)
    if isinstance(result.return_value, DmlrayError):
        raise result.return_value


def release(folder: RunFolder) -> None:
    """Free the resources that the workers of an ended trial still hold.

    Tune kills a stopped trial's process: without this the workers would keep their GPUs for ever.
    """
    note = folder.path / _GROUP
    if note.exists():
        group = note.read_text()
        if placement_group_table().get(group, {}).get("state") == "CREATED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID.from_hex(group)))
        note.unlink()


def _loop(
    plan: Experiment, folder: RunFolder, past: list[dict[str, Any]], threads: int, gpu: bool
) -> DmlrayError | None:
    """Train on each worker: worker r of W trains folds r, r + W, ... in lockstep with others."""
    clock = Clock(past)
    group = ProcessGroup(get_context().get_world_rank(), get_context().get_world_size())
    if group.is_main:
        write_text(folder.path / _GROUP, get_current_placement_group().id.hex())
    set_threads(threads)
    numbers = range(group.rank, plan.protocol.fold_count, group.size)
    for result in _steps(plan, folder, numbers, gpu, threads):
        gathered = group.gather_json(result)  # failures too, so that no worker waits for another
        if failures := [part for part in gathered if "failure" in part]:
            return _failure(**failures[0])
        epoch = _mean(plan, [part["folds"] for part in gathered], gathered[0]["epoch"], clock)
        if group.is_main:
            metrics_log.append(folder.metrics, {"epoch": epoch.number, **epoch.metrics})
    return None


def _steps(
    plan: Experiment, folder: RunFolder, numbers: range, gpu: bool, threads: int
) -> Iterator[dict[str, Any]]:
    """Yield the metrics of each epoch of the folds `numbers`, or the failure that ends them."""
    try:
        device = device_of(gpu)
        runtime = Runtime(device, loader_threads(device, threads))
        for epochs in fold_epochs(plan, folder, runtime, numbers):
            yield {"epoch": epochs[0].number, "folds": [epoch.metrics for epoch in epochs]}
    except Exception as error:  # a failed trial does not end the search
        failure = as_dmlray_error(error)
        yield {"failure": str(failure), "of_storage": isinstance(failure, StorageError)}


def _failure(failure: str, of_storage: bool) -> RunError:
    """Convert a worker's failure; a trial that failed for lack of disk space is resumed later."""
    return StorageError(failure) if of_storage else RunError(failure)


def _mean(
    plan: Experiment, gathered: list[list[dict[str, float]]], number: int, clock: Clock
) -> Epoch:
    """Return the mean over the folds of all workers, equal on each of them."""
    workers = len(gathered)
    folds = [gathered[n % workers][n // workers] for n in range(plan.protocol.fold_count)]
    means = mean_over_folds(folds, plan.protocol.metric)
    means[SPEED] = workers * means.get(SPEED, 0.0)  # they train at the same time
    return Epoch(number, {**means, "seconds": clock.at(number)})
