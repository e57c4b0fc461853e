"""Run a search on Ray Tune and Optuna; a trial trains all folds of one point."""

import hashlib
import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.error import TuneError

from dmlray.atomic_files import storage_error
from dmlray.cluster.background import run_watched
from dmlray.cluster.error_messages import as_dmlray_error
from dmlray.cluster.reporters import EpochLogger, ToTune
from dmlray.cluster.resources import Cluster, Patience, current_cluster
from dmlray.cluster.search.fold_trainer import train_folds
from dmlray.cluster.search.results import find
from dmlray.cluster.search.samplers import WITHOUT_RESULTS
from dmlray.cluster.search.schedulers import scheduler
from dmlray.cluster.search.searcher import StudySearcher
from dmlray.cluster.search.study_storage import IMPORTED, refused
from dmlray.cluster.search.tune_callback import TuneCallback
from dmlray.errors import DmlrayError, RunError, StorageError, UnfinishedRunError
from dmlray.learn import metrics_log
from dmlray.learn.cross_validation import lockstep
from dmlray.learn.device import device_of, set_threads
from dmlray.learn.loop import Epoch, Report
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search
from dmlray.reporting.progress import Display
from dmlray.reporting.search_report import SearchReport

# Logs each epoch in the folder's metrics log and then yields it; for trials in one process.
Job = Callable[[Experiment, RunFolder, Runtime], Iterator[Epoch]]
Trial = Callable[[dict[str, Any]], None]  # with the trial's number and values
_MAX_RESTARTS = 2  # of a trial whose process dies
_REGISTERING = Lock()


@dataclass(frozen=True)
class Resources:
    """Resources of one trial, and the number of trials at once."""

    cpus: float  # of each process
    gpus: float  # of each fold's worker
    workers: int  # processes that train folds in parallel
    at_once: int  # trials in parallel

    @property
    def spread(self) -> bool:
        """Whether folds run on Ray Train workers; else in the process of the trial."""
        return self.workers > 1 or self.gpus > 0


def search(
    plan: Search, folder: RunFolder, resources: Resources, display: Display, job: Job = lockstep
) -> SearchReport:
    """Run the missing trials of `folder` with `job` and report on all trials.

    Raises:
        RunError: If no trial succeeded, or too many failed in a row.
    """
    ordered = plan.settings.sampler not in WITHOUT_RESULTS and not plan.stops_early
    study = StudySearcher(plan, folder, resources.at_once if ordered else None)
    if plan.settings.scheduler != "none" and not plan.stops_early:
        display.log("no trial is stopped early, because there are several metrics")
    if study.note:
        display.log(study.note)
    if study.missing:
        _run(plan, folder, resources, study, display, job)
    report = find(plan, folder, study.study)
    report.write(folder)
    if study.stopped_by:
        raise UnfinishedRunError(study.stopped_by)
    if report.best is None:
        reasons = sorted({row.reason for row in report.rows if row.reason})
        raise RunError(f"no trial succeeded: {'; '.join(reasons) or 'none was started in time'}")
    if study.out_of_time and study.missing:
        display.log(f"the time budget is used up; {study.missing} trials were not started")
    elif study.missing or plan.trials < plan.settings.trials:
        points = len(report.trained)
        display.log(f"the space is exhausted: each of its {points} points was trained once")
    return report


def _run(
    plan: Search,
    folder: RunFolder,
    resources: Resources,
    study: StudySearcher,
    display: Display,
    job: Job,
) -> None:
    missing, folds = study.missing, plan.experiment.protocol.fold_count
    display.start(f"{missing} trials of {folds} folds, epochs", missing * plan.most_epochs)
    callback = TuneCallback(plan, folder, study, display)
    past = [(row.number, _epochs(plan, folder, row)) for row in study.finished()]
    tuner = tune.Tuner(
        _registered(_trainable(plan, folder, resources, job), folder, resources),
        tune_config=tune.TuneConfig(
            search_alg=study,
            scheduler=scheduler(plan, study.is_published, past),
            num_samples=missing,
            max_concurrent_trials=resources.at_once,
            reuse_actors=not resources.spread,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.ray),
            failure_config=tune.FailureConfig(max_failures=_MAX_RESTARTS),
            callbacks=[callback],
            verbose=0,
        ),
    )
    # Suppress errors of files that only Tune needs; the study reports a full disk.
    logging.getLogger("ray.tune.execution.experiment_state").setLevel(logging.CRITICAL)
    with explained(folder):
        run_watched(tuner.fit, callback.stop, _CapacityCheck(resources))
        study.flush()
    if resources.spread:
        callback.release_all()
    shutil.rmtree(folder.ray, ignore_errors=True)


def _registered(trial: Trial, folder: RunFolder, resources: Resources) -> str:
    """Register the function with Tune under a name of its own.

    Searches may run at once in one process, where Tune keeps functions by name, without a lock.
    """
    name = f"trial_{hashlib.sha256(bytes(folder.path.absolute())).hexdigest()[:16]}"
    with _REGISTERING:
        tune.register_trainable(name, tune.with_resources(trial, _request(resources)))
    return name


def _epochs(plan: Search, folder: RunFolder, row: FrozenTrial) -> list[dict[str, Any]]:
    """Return the epochs of an ended trial; an imported one has only what the study keeps."""
    if IMPORTED not in row.user_attrs:
        return metrics_log.read(folder.trial(row.number).metrics)
    metric = plan.metrics[0]
    return [
        {"epoch": n, metric: row.intermediate_values[n]} for n in sorted(row.intermediate_values)
    ]


@contextmanager
def explained(folder: RunFolder) -> Iterator[None]:
    """Convert storage errors of the study, which Tune may wrap in a traceback.

    Raises:
        StorageError: Running trials are resumed in the next session.
    """
    try:
        yield
    except (StorageInternalError, TuneError) as error:
        caught = error.__context__ if isinstance(error, TuneError) else error
        if isinstance(caught, StorageInternalError):
            raise refused(folder.study, caught) from error
        raise (storage_error(caught) if caught else None) or error from None


def _trainable(plan: Search, folder: RunFolder, resources: Resources, job: Job) -> Any:
    """Return the function that Tune calls with {number, values}; it reports each epoch."""

    def train(experiment: Experiment, target: RunFolder, report: Report) -> None:
        if resources.spread:
            workers = (resources.workers, resources.cpus, resources.gpus)
            train_folds(experiment, target, report, *workers)
            return
        set_threads(max(1, int(resources.cpus)))  # trials with a GPU are `spread`
        try:
            for epoch in job(experiment, target, Runtime(device_of(resources.gpus > 0))):
                report(epoch)
        except Exception as error:  # a failed trial does not end the search
            raise as_dmlray_error(error) from None

    def trial(config: dict[str, Any]) -> None:
        values, target = config["values"], folder.trial(config["number"])
        try:
            experiment = plan.point(values)
            with closing(EpochLogger(experiment, target, values)) as logger:
                train(experiment, target, ToTune(logger))
        except (DmlrayError, OSError) as error:
            failure = as_dmlray_error(error)
            kind = "unfinished" if isinstance(failure, StorageError) else "error"
            tune.report({kind: str(failure), "epoch": 0})

    return trial


def resources_of(plan: Search, cluster: Cluster) -> Resources:
    """Return the resources of each trial, and how many run at once.

    Raises:
        ResourceError: If not even one trial fits on the cluster.
    """
    settings, folds = plan.settings, plan.experiment.protocol.fold_count
    gpus = settings.gpus if settings.gpus is not None else float(cluster.has_gpus)
    cpus = settings.cpus or cluster.fair_cpus(gpus)
    processes = cluster.fit(cpus, gpus)
    workers = min(folds, settings.folds_at_once or (folds if gpus else 1), processes)
    fits = processes // workers
    at_once = min(fits, settings.trials_at_once or fits, plan.trials)
    return Resources(cpus, gpus, workers, at_once)


class _CapacityCheck:
    """Ends a search if no trial fits on the living nodes for a while; Ray would wait for ever.

    Raises:
        RunError: In that case, when called.
    """

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._patience = Patience()

    def __call__(self) -> None:
        needs, cluster = self._resources, current_cluster()
        if self._patience.is_over(cluster.count(needs.cpus, needs.gpus) // needs.workers):
            shortage = cluster.shortage(needs.cpus, needs.gpus, needs.workers)
            raise UnfinishedRunError(f"a node was lost: {shortage}")


def _request(resources: Resources) -> dict[str, float]:
    """Return the resources of a trial's process: one byte if Ray Train workers need the others."""
    return {"memory": 1} if resources.spread else {"cpu": resources.cpus}
