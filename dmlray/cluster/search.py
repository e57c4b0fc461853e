"""A search on Ray Tune and Optuna: one trial is all folds of one suggestion."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from optuna.trial import FrozenTrial
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from dmlray.cluster.fold_workers import release, train_folds
from dmlray.cluster.session import Cluster
from dmlray.cluster.study import Study
from dmlray.cluster.watch import watch
from dmlray.errors import DmlrayError
from dmlray.learn import journal
from dmlray.learn.device import default_device, set_threads
from dmlray.learn.lockstep import lockstep
from dmlray.learn.training import Place
from dmlray.plans.folder import RunFolder
from dmlray.plans.search import Search
from dmlray.reporting.display import Display
from dmlray.reporting.tensorboard import TensorBoard

SCORES = ("map_at_r", "recall_at_1", "r_precision")  # columns of TensorBoard's HParams
_MAX_RESTARTS = 2  # of a trial whose process died
_RELEASE_AFTER = 2.0  # seconds: by then Tune has killed an ended trial's process


@dataclass(frozen=True)
class Resources:
    """What one trial takes."""

    cpus: float
    gpus: float  # of each fold's worker
    workers: int  # that train folds side by side, where there are GPUs
    at_once: int  # trials


def search(plan: Search, folder: RunFolder, resources: Resources, display: Display) -> FrozenTrial:
    """Run the trials that `folder` lacks; return the best one.

    Raises:
        RunError: If no trial succeeded.
    """
    study = Study(plan, folder)
    missing = plan.settings.trials - len(study.finished())
    epochs = plan.experiment.budget.epochs
    display.start(
        f"{missing} trials of {plan.experiment.protocol.folds} folds, epochs", missing * epochs
    )
    if missing > 0:
        watcher = Watcher(plan, folder, study, display)
        tuner = tune.Tuner(
            tune.with_resources(_trainable(plan, folder, resources), _request(resources)),
            tune_config=tune.TuneConfig(
                search_alg=study,
                scheduler=_scheduler(plan, study, folder),
                num_samples=missing,
                max_concurrent_trials=resources.at_once,
                reuse_actors=not resources.gpus,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder.path / ".ray"),
                failure_config=tune.FailureConfig(max_failures=_MAX_RESTARTS),
                callbacks=[watcher],
                verbose=0,
            ),
        )
        watch(tuner.fit, lambda: None)
        watcher.release_all()
        shutil.rmtree(folder.path / ".ray", ignore_errors=True)
    return study.best()


class Watcher(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Moves the display and writes each trial's TensorBoard, in the driver."""

    def __init__(self, plan: Search, folder: RunFolder, study: Study, display: Display) -> None:
        self._plan, self._folder, self._study, self._display = plan, folder, study, display
        self._boards: dict[str, TensorBoard] = {}
        self._epochs: dict[str, int] = {}
        self._ended: dict[int, float] = {}
        self._best = float("-inf")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its callbacks; a resumed search makes a new one

    def on_trial_result(
        self,
        iteration: int,
        trials: list[TuneTrial],
        trial: TuneTrial,
        result: dict[str, Any],
        **_: Any,
    ) -> None:
        metric = self._plan.experiment.protocol.metric
        if metric not in result:
            return
        number = self._study.number(trial.trial_id)
        if result["epoch"] == 1 or trial.trial_id not in self._boards:
            self._boards[trial.trial_id] = TensorBoard(self._folder.trial(number).path)
        line = journal.read(self._folder.trial(number).metrics)[result["epoch"] - 1]
        self._boards[trial.trial_id].epoch(line.pop("epoch"), line)
        self._epochs[trial.trial_id] = result["epoch"]
        self._best = max(self._best, result[metric])
        self._show()

    def on_trial_complete(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        number = self._study.number(trial.trial_id)
        self._over(number)
        if reason := trial.last_result.get("error"):
            self._display.say(f"trial {number} failed: {reason}")
        lines = journal.read(self._folder.trial(number).metrics)
        if lines and (board := self._boards.pop(trial.trial_id, None)):
            scores = {name: lines[-1][name] for name in SCORES if name in lines[-1]}
            board.hparams(self._study.values(trial.trial_id), scores)
            board.close()
        self._epochs[trial.trial_id] = self._plan.experiment.budget.epochs
        self._show()

    def on_trial_error(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: Any
    ) -> None:
        number = self._study.number(trial.trial_id)
        self._over(number)
        self._display.say(f"trial {number} failed: its process died")

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **_: Any) -> None:
        for number, since in self._ended.items():
            if time.monotonic() - since > _RELEASE_AFTER:
                release(self._folder.trial(number))

    def release_all(self) -> None:
        """Wait until the last trial's process is gone and free what its workers held."""
        while any(time.monotonic() - since <= _RELEASE_AFTER for since in self._ended.values()):
            time.sleep(0.1)
        self.on_step_end(0, [])

    def _over(self, number: int) -> None:
        self._ended[number] = time.monotonic()

    def _show(self) -> None:
        metric = self._plan.experiment.protocol.metric
        note = f"{len(self._ended)} trials over, best {metric} {self._best:.3f}"
        self._display.update(sum(self._epochs.values()), note)


def _trainable(plan: Search, folder: RunFolder, resources: Resources) -> Any:
    """The function that Tune calls with {number, values}: a generator of metrics per epoch."""

    def trial(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
        place = folder.trial(config["number"])
        try:
            experiment = plan.point(config["values"])
            if resources.gpus:
                train_folds(experiment, place, resources.workers, resources.gpus)
                return
            set_threads(max(1, int(resources.cpus)))
            for epoch in lockstep(experiment, place, Place(default_device())):
                yield {"epoch": epoch.number, **epoch.metrics}
        except (DmlrayError, MemoryError, torch.OutOfMemoryError) as error:
            yield {"error": str(error), "epoch": 0}

    return trial


def resources_of(plan: Search, cluster: Cluster) -> Resources:
    """What each trial gets, and how many run at once.

    Raises:
        ResourceError: If the cluster can never give what one trial asks for.
    """
    settings, folds = plan.settings, plan.experiment.protocol.folds
    gpus = settings.gpus if settings.gpus is not None else float(cluster.gpus >= 1)
    cpus = settings.cpus or 1.0
    workers = min(folds, cluster.fit(cpus, gpus)) if gpus else 1
    fits = cluster.fit(cpus * workers, gpus * workers)
    at_once = min(fits, settings.trials_at_once or fits, settings.trials)
    return Resources(cpus, gpus, workers, at_once)


def _request(resources: Resources) -> dict[str, float]:
    """A driver of Train workers must not hold what its workers need: one byte is its token."""
    return {"memory": 1} if resources.gpus else {"cpu": resources.cpus}


def _scheduler(plan: Search, study: Study, folder: RunFolder) -> TrialScheduler:
    """The scheduler, told what the trials of an earlier session did."""
    settings, metric = plan.settings, plan.experiment.protocol.metric
    if settings.scheduler == "none":
        return FIFOScheduler()
    epochs = plan.experiment.budget.epochs
    asha = ASHAScheduler(
        time_attr="epoch",
        metric=metric,
        mode="max",
        max_t=epochs,
        grace_period=min(settings.grace_epochs, epochs),
        reduction_factor=settings.reduction_factor,
    )
    for row in study.finished():
        past = TuneTrial("past", trial_id=f"past{row.number}", stub=True)
        asha.on_trial_add(None, past)
        for line in journal.read(folder.trial(row.number).metrics):
            asha.on_trial_result(None, past, line)
    return asha
