"""Who suggests the next point: Optuna's samplers, each told its seed and defaults."""

from collections.abc import Sequence

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import (
    BaseSampler,
    BruteForceSampler,
    CmaEsSampler,
    GPSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from dmlray.knobs import Choice, Distribution, Float, Int, Value
from dmlray.plans.settings import Settings


class Grid(BruteForceSampler):
    """Each combination once, in an order drawn from the seed; understands conditions."""

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: object
    ) -> None:
        """Nothing: Optuna would stop a loop that is Tune's, and a search counts its points."""


def sampler(settings: Settings, past: Sequence[FrozenTrial]) -> BaseSampler:
    """An explicit sampler; a resumed one, with a `past`, draws anew and not the same again.

    CMA-ES goes on from the best point: Optuna keeps its state as a pickle in the study, and a study
    may come from anywhere.
    """
    seed, startup = settings.seed + len(past), settings.startup_trials
    match settings.sampler:
        case "random":
            return RandomSampler(seed=seed)
        case "grid":
            return Grid(seed=seed)
        case "cmaes":  # what it cannot move, such as choices, is drawn at random
            complete = [row for row in past if row.state == TrialState.COMPLETE]
            best = max(complete, key=lambda row: row.values[0], default=None)
            x0 = best.params if best else None
            return CmaEsSampler(x0=x0, seed=seed, warn_independent_sampling=False)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        case "tpe":  # constant_liar: trials run side by side
            return TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
            )


def optuna_range(distribution: Distribution) -> BaseDistribution:
    """The range in Optuna's form, as a study keeps it."""
    match distribution:
        case Float(low, high, log, step):
            return FloatDistribution(low, high, log=log, step=step)
        case Int(low, high, log, step):
            return IntDistribution(low, high, log=log, step=step)
        case Choice(values):
            return CategoricalDistribution(values)


def ask(trial: Trial, key: str, distribution: Distribution) -> Value:
    """The trial's value of one key."""
    value: Value
    match distribution:
        case Float(low, high, log, step):
            value = trial.suggest_float(key, low, high, log=log, step=step)
        case Int(low, high, log, step):
            value = trial.suggest_int(key, low, high, log=log, step=step)
        case Choice(values):
            value = trial.suggest_categorical(key, list(values))
    return value
