"""One training on Ray Train, restarted from its last checkpoint if a worker dies."""

import hashlib
from collections.abc import Callable
from contextlib import closing
from functools import partial

from ray.train import FailureConfig, Result, RunConfig, ScalingConfig, get_context

from dmlray.atomic_files import storage_error
from dmlray.cluster.background import run_watched
from dmlray.cluster.error_messages import is_out_of_memory, of_worker
from dmlray.cluster.reporters import EpochLogger, to_train
from dmlray.cluster.resources import Cluster
from dmlray.cluster.torch_backend import TorchBackendConfig
from dmlray.cluster.train_callbacks import FailOnUserError, FailWithoutResources
from dmlray.cluster.trainer import Trainer
from dmlray.errors import DmlrayError, ResourceError, RunError, UnfinishedRunError
from dmlray.learn import metrics_log
from dmlray.learn.device import device_of, loader_threads, set_threads
from dmlray.learn.loop import Epoch
from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import Display, speed
from dmlray.scores import Scores, read_scores

_MAX_RESTARTS = 2  # of a dead worker
_NO_MEMORY = (
    "out of memory: try a smaller data.batch_size, more budget.workers (each takes a part of "
    "every batch) or budget.precision=bfloat16"
)


def train(plan: Experiment, folder: RunFolder, cluster: Cluster, display: Display) -> Scores:
    """Train `plan` in `folder` on GPUs if the cluster has any, else on CPUs.

    Raises:
        DmlrayError: Of a worker; RunError if workers die repeatedly.
    """
    workers = plan.budget.workers
    cpus, gpu = resources_of(plan, cluster)
    display.start(f"{plan.method.name} on {plan.data.name}, epochs", plan.budget.epochs)
    trainer = Trainer(
        partial(_loop, plan, folder, cpus, gpu),
        backend_config=TorchBackendConfig(),
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus, "GPU": int(gpu)}
        ),
        run_config=RunConfig(
            name=ray_name(folder),
            storage_path=str(folder.ray),
            failure_config=FailureConfig(max_failures=_MAX_RESTARTS),
            callbacks=[FailOnUserError(), FailWithoutResources(workers, cpus, int(gpu))],
        ),
    )
    folder.progress_log.unlink(missing_ok=True)  # of a killed worker
    try:
        run_watched(lambda: fit(trainer), trainer.stop, EpochDisplay(plan, folder, display))
    except ResourceError as error:
        raise UnfinishedRunError(str(error)) from error
    return read_scores(folder.scores)


def resources_of(plan: Experiment, cluster: Cluster) -> tuple[int, bool]:
    """Return the CPU cores of each worker, and whether it has a GPU.

    Raises:
        ResourceError: If the cluster does not have these resources.
    """
    workers, gpu = plan.budget.workers, cluster.has_gpus
    cpus = cluster.cpus_each(workers, gpu)
    cluster.fit(cpus, float(gpu), workers)
    return cpus, gpu


def fit(trainer: Trainer) -> Result:
    """Run a trainer; convert its failure to a DmlrayError."""
    try:
        return trainer.fit()
    except Exception as error:
        failure = of_worker(error)
        if isinstance(failure, DmlrayError):
            raise failure from error
        lines = [line.strip() for line in str(error).strip().split("\n") if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise RunError(f"the training failed: {reason}") from error


def ray_name(folder: RunFolder) -> str:
    """Return a unique name for Ray Train, which would continue another run of the same name."""
    return hashlib.sha256(str(folder.path).encode()).hexdigest()[:12]


def _loop(plan: Experiment, folder: RunFolder, cpus: int, gpu: bool) -> None:
    """Train on each worker; a DmlrayError ends the run, see `FailOnUserError`."""
    device = device_of(gpu)
    group = ProcessGroup(get_context().get_world_rank(), get_context().get_world_size())
    set_threads(cpus)
    try:
        _train(plan, folder, Runtime(device, loader_threads(device, cpus), group))
    except Exception as error:
        if is_out_of_memory(error):
            raise RunError(_NO_MEMORY) from error
        if storage := storage_error(error):
            raise storage from None
        raise


def _train(plan: Experiment, folder: RunFolder, runtime: Runtime) -> None:
    if not runtime.group.is_main:
        run_training(plan, folder, to_train, runtime)
        return
    with closing(EpochLogger(plan, folder)) as logger:

        def report(epoch: Epoch) -> None:
            logger(epoch)
            to_train(epoch)

        logger.finish(run_training(plan, folder, report, runtime))


class EpochDisplay:
    """Show the progress in the main worker's files: epochs, then the computations after them."""

    def __init__(self, plan: Experiment, folder: RunFolder, display: Display) -> None:
        self._plan, self._folder, self._display = plan, folder, display
        self._count: Callable[[int, int], None] | None = None

    def __call__(self) -> None:
        """Show the epochs that were logged since the last call."""
        progress = metrics_log.counted(self._folder.progress_log)
        if not self._count:
            self._epochs()  # the last one too, before the count replaces it
        if progress:
            self._count = self._count or self._display.count(progress.title)
            self._count(progress.done, progress.total)

    def _epochs(self) -> None:
        lines = metrics_log.read(self._folder.metrics)
        if lines:
            last, metric = lines[-1], self._plan.protocol.metric
            notes = [f"{name} {last[name]:.3f}" for name in ("loss", metric) if name in last]
            if scored := [line[metric] for line in lines if metric in line]:
                notes.append(f"best {max(scored):.3f}")
            notes.append(speed(last.get(metrics_log.SPEED, 0)))
            self._display.update(last["epoch"], " ".join(notes))
