"""Tune callback that updates the display and frees resources of ended trials."""

import time
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from dmlray.cluster.error_messages import DIED
from dmlray.cluster.search.fold_trainer import release
from dmlray.cluster.search.searcher import StudySearcher
from dmlray.learn.metrics_log import SPEED
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import Search
from dmlray.reporting.progress import Display, speed

_RELEASE_AFTER = 2.0  # seconds, after which Tune has killed an ended trial's process


class StopSignal(BaseException):
    """Ends Tune's loop from a callback, which is the only way.

    Not an `Exception`: after one, Tune waits for trials that Ray is about to end anyway.
    """


class TuneCallback(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Updates the display and frees the resources of ended trials."""

    def __init__(
        self, plan: Search, folder: RunFolder, study: StudySearcher, display: Display
    ) -> None:
        self._plan, self._folder, self._study, self._display = plan, folder, study, display
        self._epochs: dict[str, int] = {}
        self._speeds: dict[str, float] = {}  # images/s of running trials
        self._ended: dict[int, float] = {}
        self._over, self._stopped = 0, False
        self._best = float("-inf")

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune stores its callbacks; a resumed search makes a new one

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any
    ) -> None:
        """Show a trial's epoch."""
        metric = self._plan.metrics[0]
        if metric not in result:
            return
        self._epochs[trial.trial_id] = result["epoch"]
        self._best = max(self._best, result[metric])
        self._speeds[trial.trial_id] = result.get(SPEED, 0)
        self._show()

    def on_trial_complete(
        self, iteration: int, trials: list[Trial], trial: Trial, **_: Any
    ) -> None:
        """Show a trial that ended, with the reason if it did not finish."""
        result = trial.last_result
        self._end(trial, result.get("error") or result.get("unfinished"))
        self._show()

    def on_trial_recover(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Log that a trial restarts after its process died, and free what its workers hold."""
        number = self._study.number(trial.trial_id)
        release(self._folder.trial(number))
        self._display.log(f"trial {number}: {DIED}; resumes from its last checkpoints")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:
        """Show a trial whose process died too often."""
        self._end(trial, DIED)

    def stop(self) -> None:
        """End the search at the next step of Tune."""
        self._stopped = True

    def on_step_begin(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Stop Tune if a signal asked for it."""
        if self._stopped:
            raise StopSignal

    def on_step_end(self, iteration: int, trials: list[Trial], **_: Any) -> None:
        """Release the embeddings of trials that ended some time ago."""
        for number, since in list(self._ended.items()):
            if time.monotonic() - since > _RELEASE_AFTER:
                release(self._folder.trial(number))
                del self._ended[number]

    def release_all(self) -> None:
        """Wait until the last trial's process has ended and free its workers' resources."""
        while self._ended:
            time.sleep(0.1)
            self.on_step_end(0, [])

    def _end(self, trial: Trial, failure: str | None) -> None:
        number = self._study.number(trial.trial_id)
        self._ended[number] = time.monotonic()
        self._over += 1
        self._epochs[trial.trial_id] = self._plan.most_epochs
        self._speeds.pop(trial.trial_id, None)
        if failure:
            self._display.log(f"trial {number} failed: {failure}")

    def _show(self) -> None:
        best = f"best {self._plan.metrics[0]} {self._best:.3f}"
        note = f"{self._over} trials done, {best} {speed(sum(self._speeds.values()))}"
        self._display.update(sum(self._epochs.values()), note.rstrip())
