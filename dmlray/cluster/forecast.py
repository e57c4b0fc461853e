"""Estimate time and memory of a search or training from a probe on one worker."""

from dataclasses import asdict, dataclass, replace
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
from dmlray.learn.class_split import fold_split
from dmlray.learn.device import device_of, loader_threads, set_threads
from dmlray.learn.probe import Probe, probe
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.search import Search
from dmlray.reporting.tabular import Tabular

_TRAIN_START = 10.0  # measured seconds until a Ray Train worker runs


@dataclass(frozen=True)
class Forecast(Tabular):
    """Estimate for a search, or for one training with `trials` and `folds` equal to 1.

    `seconds` assumes that parallel processes do not slow each other down, and that all points of a
    space cost the same. Memory is in bytes, of one process.
    """

    trials: int
    folds: int
    epochs: int
    repeats: int
    stops_early: bool  # then `seconds` is an upper bound
    resources: Resources
    probe: Probe
    seconds: float
    memory: int
    gpu_memory: int

    def records(self) -> list[dict[str, float]]:
        """Return one row, with a column for each resource and each value of the probe."""
        numbers = asdict(self)
        resources, probe = numbers.pop("resources"), numbers.pop("probe")
        return [
            numbers
            | {f"resources_{name}": number for name, number in resources.items()}
            | {f"probe_{name}": number for name, number in probe.items()}
        ]


def of_search(
    plan: Search, dataset: Dataset, cluster: Cluster, probed: Probe | None = None
) -> Forecast:
    """Estimate all trials of `plan`, and the repeats of its winner.

    Args:
        plan: The search, whose number of folds is known.
        dataset: Its images.
        cluster: Where it will run.
        probed: Costs of the same experiment, also on other images; None measures them.

    Raises:
        DmlrayError: As the first trial raises.
    """
    resources, settings = resources_of(plan, cluster), plan.settings
    if probed:
        found = _scaled(probed, plan.experiment, dataset)
    else:
        found = _probe(plan.experiment, resources, folds=True)
    folds = plan.experiment.protocol.fold_count
    per_process = ceil(folds / resources.workers)  # folds
    trial = per_process * _training(plan.experiment, found)
    trial += _TRAIN_START if resources.spread else 0.0
    parallel = share_of(cluster, 1).capacity(cluster) if settings.repeats else 1
    repeat = _training(plan.experiment, found, dataset)
    per_process_once = found.feature * len(dataset)
    features = folds * per_process_once + (per_process_once if settings.repeats else 0.0)
    return Forecast(
        trials=plan.trials,
        folds=folds,
        epochs=plan.experiment.budget.epochs,
        repeats=settings.repeats,
        stops_early=plan.stops_early,
        resources=resources,
        probe=found,
        seconds=ceil(plan.trials / resources.at_once) * trial
        + ceil(settings.repeats / parallel) * repeat
        + features,
        **_memory(found, per_process),
    )


def of_experiment(plan: Experiment, dataset: Dataset, cluster: Cluster) -> Forecast:
    """Estimate one training, as if one worker processed whole batches.

    Raises:
        DmlrayError: As its first steps raise.
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
        seconds=_TRAIN_START
        + _training(plan, found)
        + _unseen(dataset) * found.image
        + len(dataset) * found.feature,
        **_memory(found, 1),
    )


def _training(plan: Experiment, found: Probe, whole: Dataset | None = None) -> float:
    """Return seconds of one training as probed, or on all of `whole` with its final evaluation."""
    budget = plan.budget
    images, scored, tested = found.train_images, found.scored_images, 0
    if whole is not None:
        images, scored, tested = len(whole) - _unseen(whole), 0, _unseen(whole)
    steps = found.steps * images / found.train_images
    warm = budget.head_warmup_steps and not plan.backbone.frozen  # whose features count once
    head = images * found.image if warm else 0.0  # its steps are negligible
    epochs = budget.epochs * (steps * found.step + scored * found.image)
    return found.start + head + epochs + tested * found.image


def _scaled(found: Probe, plan: Experiment, dataset: Dataset) -> Probe:
    """Return the probe with the numbers of images, and of steps, of the first fold of `dataset`."""
    split = fold_split(plan, dataset, 0)
    train, scored = len(split.train), len(split.validation or ())
    steps = max(1, round(found.steps * train / found.train_images))
    return replace(found, train_images=train, scored_images=scored, steps=steps)


def _unseen(dataset: Dataset) -> int:
    return int((dataset.labels >= dataset.train_classes).sum())


def _memory(found: Probe, trainings: int) -> dict[str, int]:
    """Return the peaks of a process that runs this many trainings by turns."""
    more = (trainings - 1) * found.held
    if found.gpu_memory:
        return {"memory": found.memory, "gpu_memory": found.gpu_memory + more}
    return {"memory": found.memory + more, "gpu_memory": 0}


def _probe(plan: Experiment, resources: Resources, folds: bool) -> Probe:
    """Probe in a separate process with the resources of one process of the real run."""
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0, max_calls=1)(
        _on_worker
    )
    reference = task.remote(plan, max(1, int(resources.cpus)), resources.gpus > 0, folds)
    while not ray.wait([reference], timeout=0.5)[0]:
        pass  # so that Ctrl-C is handled
    try:
        found: Probe = ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, DmlrayError):
            raise error.cause from None
        if is_out_of_memory(error):
            raise ResourceError(f"a training does not fit into memory: {error.cause}") from None
        raise RunError(f"the probe failed: {error.cause}") from error
    except WorkerCrashedError:
        raise ResourceError(
            "the process of the probe died, as it does when memory is exhausted"
        ) from None
    return found


def _on_worker(plan: Experiment, threads: int, gpu: bool, folds: bool) -> Probe:
    device = device_of(gpu)
    set_threads(threads)
    with out_of_memory_on_top():
        return probe(plan, Runtime(device, loader_threads(device, threads)), folds)
