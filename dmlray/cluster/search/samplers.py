"""Optuna's samplers with explicit seeds and settings."""

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

from dmlray.distributions import Choice, Distribution, Float, Int, Value
from dmlray.plans.search_settings import SearchSettings

WITHOUT_RESULTS = ("random", "grid")  # samplers whose points depend on no result


class Grid(BruteForceSampler):
    """Suggests each combination once, in random order; supports conditions."""

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: object
    ) -> None:
        """Do nothing: Optuna would stop the study, but the search decides when to end."""


def sampler(settings: SearchSettings, asked: int) -> BaseSampler:
    """Build the plan's sampler; `asked` earlier suggestions change the seed of a resumed one."""
    seed, startup = settings.seed + asked, settings.startup_trials
    match settings.sampler:
        case "random":
            return RandomSampler(seed=seed)
        case "grid":
            return Grid(seed=seed)
        case "cmaes":  # settings that it does not support, such as choices, are random
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
        case "gp":
            return GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
        case "tpe":  # constant_liar: trials run in parallel
            return TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, constant_liar=True
            )


def optuna_range(distribution: Distribution) -> BaseDistribution:
    """Convert a distribution to Optuna's form, which a study stores."""
    match distribution:
        case Float(low, high, log, step):
            return FloatDistribution(low, high, log=log, step=step)
        case Int(low, high, log, step):
            return IntDistribution(low, high, log=log, step=step)
        case Choice(values):
            return CategoricalDistribution(values)


def ask(trial: Trial, key: str, distribution: Distribution) -> Value:
    """Return the trial's value of one key."""
    value: Value
    match distribution:
        case Float(low, high, log, step):
            value = trial.suggest_float(key, low, high, log=log, step=step)
        case Int(low, high, log, step):
            value = trial.suggest_int(key, low, high, log=log, step=step)
        case Choice(values):
            value = trial.suggest_categorical(key, list(values))
    return value
