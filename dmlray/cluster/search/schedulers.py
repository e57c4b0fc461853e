"""Rules that stop trials early; never the published point, and only for one metric."""

from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    TrialScheduler,
)

from dmlray.plans.search import Search

Spared = Callable[[str], bool]  # whether the trial with this Tune id is never stopped
Past = Iterable[tuple[int, list[dict[str, Any]]]]  # a trial's number and its epochs' metrics
_PAST = "past"


class Asha(ASHAScheduler):  # type: ignore[misc]  # Ray has no types
    """ASHA that learns from every trial and stops only those that are not spared."""

    def __init__(self, spared: Spared, **options: Any) -> None:
        super().__init__(**options)
        self.spared = spared

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide as ASHA does, except for spared trials, which continue."""
        decision = super().on_trial_result(controller, trial, result)
        return str(TrialScheduler.CONTINUE if self.spared(trial.trial_id) else decision)


class Median(MedianStoppingRule):  # type: ignore[misc]  # Ray has no types
    """The median rule that learns from every trial and stops only those that are not spared."""

    def __init__(self, spared: Spared, **options: Any) -> None:
        super().__init__(**options)
        self.spared = spared

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide as the median rule does, except for spared trials, which continue."""
        decision = super().on_trial_result(controller, trial, result)
        if self.spared(trial.trial_id):
            self._stopped_trials.discard(trial)  # else its next epoch is an error
            return str(TrialScheduler.CONTINUE)
        return str(decision)

    def _on_insufficient_samples(self, controller: Any, trial: Trial, time: float) -> str:
        return str(TrialScheduler.CONTINUE)  # Ray would pause the trial and restart it later


def scheduler(plan: Search, published: Spared, past: Past) -> TrialScheduler:
    """Build the scheduler of a plan and replay the trials of earlier sessions."""
    if not plan.stops_early:
        return FIFOScheduler()
    rule = _rule(plan, lambda trial: trial.startswith(_PAST) or published(trial))
    for number, epochs in past:
        trial = Trial(_PAST, trial_id=f"{_PAST}{number}", stub=True)
        rule.on_trial_add(None, trial)
        for line in epochs:
            rule.on_trial_result(None, trial, line)
    return rule


def _rule(plan: Search, spared: Spared) -> TrialScheduler:
    settings, epochs = plan.settings, plan.most_epochs
    grace = min(settings.grace_epochs, epochs)
    common = {"time_attr": "epoch", "metric": plan.metrics[0], "mode": "max", "grace_period": grace}
    if settings.scheduler == "median":
        return Median(spared, **common)
    return Asha(spared, max_t=epochs, reduction_factor=settings.reduction_factor, **common)
