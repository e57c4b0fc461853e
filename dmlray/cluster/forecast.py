"""What a search or a training will take here, from a probe on one worker. Nothing is kept."""

from dataclasses import asdict, dataclass
from math import ceil

import ray
from ray.exceptions import RayTaskError, WorkerCrashedError

from dmlray.cluster import train
from dmlray.cluster.ensemble.actor_pool import share_of
from dmlray.cluster.error_messages import is_out_of_memory, out_of_memory_on_top
from dmlray.cluster.resources import Cluster
from dmlray.cluster.search.run import Resources, resources_of
from dmlray.data.dataset import Dataset
from dmlray.errors import DmlrayError, ResourceError, RunError
from dmlray.learn.device import device_of, loader_threads, set_threads
from dmlray.learn.probe import Probe, probe
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.search import Search
from dmlray.reporting.tabular import Tabular

_TRAIN_START = 15.0  # seconds until a Ray Train worker runs, as measured


@dataclass(frozen=True)
class Forecast(Tabular):
    """Trials of some folds each, or one training: then `trials` and `folds` are 1.

    `seconds` supposes that processes side by side do not slow each other down, and that every
    point of a space costs what the first one does. Memory is in bytes, of one process.
    """

    trials: int
    folds: int
    epochs: int
    repeats: int
    stops_early: bool  # so that `seconds` are the most
    resources: Resources
    probe: Probe
    seconds: float
    memory: int
    gpu_memory: int

    def records(self) -> list[dict[str, float]]:
        """One row; the plan of resources and the probe as columns of their own."""
        numbers = asdict(self)
        resources, probe = numbers.pop("resources"), numbers.pop("probe")
        return [
            numbers
            | {f"resources_{name}": number for name, number in resources.items()}
            | {f"probe_{name}": number for name, number in probe.items()}
        ]


def of_search(plan: Search, dataset: Dataset, cluster: Cluster) -> Forecast:
    """Forecast all trials of `plan`, and the repeats of its winner.

    Raises:
        DmlrayError: What the first trial would meet.
    """
    resources, settings = resources_of(plan, cluster), plan.settings
    found = _probe(plan.experiment, resources, folds=True)
    folds = plan.experiment.protocol.fold_count
    in_turn = ceil(folds / resources.workers)  # folds of one process
    trial = in_turn * _training(plan.experiment, found)
    trial += _TRAIN_START if resources.gpus else 0.0
    slots = share_of(cluster, 1).capacity(cluster) if settings.repeats else 1
    repeat = _training(plan.experiment, found, dataset)
    return Forecast(
        trials=plan.trials,
        folds=folds,
        epochs=plan.experiment.budget.epochs,
        repeats=settings.repeats,
        stops_early=settings.scheduler != "none",
        resources=resources,
        probe=found,
        seconds=ceil(plan.trials / resources.at_once) * trial
        + ceil(settings.repeats / slots) * repeat,
        **_memory(found, in_turn),
    )


def of_experiment(plan: Experiment, dataset: Dataset, cluster: Cluster) -> Forecast:
    """Forecast one training, as if one worker took each batch whole.

    Raises:
        DmlrayError: What its first steps would meet.
    """
    cpus, gpu = train.resources_of(plan, cluster)
    resources = Resources(cpus, int(gpu), plan.budget.workers, at_once=1)
    found = _probe(plan, resources, folds=False)
    return Forecast(
        trials=1,
        folds=1,
        epochs=plan.budget.epochs,
        repeats=0,
        stops_early=False,
        resources=resources,
        probe=found,
        seconds=_TRAIN_START + _training(plan, found) + _unseen(dataset) * found.image,
        **_memory(found, 1),
    )


def _training(plan: Experiment, found: Probe, whole: Dataset | None = None) -> float:
    """Seconds of one training: as probed, or on all training classes of `whole` and its test."""
    budget = plan.budget
    images, scored, tested = found.train_images, found.scored_images, 0
    if whole is not None:
        images, scored, tested = len(whole) - _unseen(whole), 0, _unseen(whole)
    steps = found.steps * images / found.train_images
    head = images * found.image if budget.head_warmup_steps else 0.0  # its steps cost next to none
    epochs = budget.epochs * (steps * found.step + scored * found.image)
    return found.start + head + epochs + tested * found.image


def _unseen(dataset: Dataset) -> int:
    return int((dataset.labels >= dataset.train_classes).sum())


def _memory(found: Probe, trainings: int) -> dict[str, int]:
    """Peaks of a process that keeps so many trainings and steps them in turn."""
    more = (trainings - 1) * found.held
    if found.gpu_memory:
        return {"memory": found.memory, "gpu_memory": found.gpu_memory + more}
    return {"memory": found.memory + more, "gpu_memory": 0}


def _probe(plan: Experiment, resources: Resources, folds: bool) -> Probe:
    """Probe in a process of its own, on what one process of the real run gets."""
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0, max_calls=1)(
        _on_worker
    )
    reference = task.remote(plan, max(1, int(resources.cpus)), resources.gpus > 0, folds)
    while not ray.wait([reference], timeout=0.5)[0]:
        pass  # so that Ctrl-C is heard
    try:
        found: Probe = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, DmlrayError):
            raise error.cause from None
        if is_out_of_memory(error):
            raise ResourceError(f"a training does not fit into memory: {error.cause}") from None
        raise RunError(f"the probe failed: {error.cause}") from error
    except WorkerCrashedError:
        raise ResourceError("the probe's process died, as it does when memory runs out") from None
    return found


def _on_worker(plan: Experiment, threads: int, gpu: bool, folds: bool) -> Probe:
    device = device_of(gpu)
    set_threads(threads)
    with out_of_memory_on_top():
        return probe(plan, Runtime(device, loader_threads(device, threads)), folds)
