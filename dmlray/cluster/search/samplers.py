"""Who suggests the next point: Optuna's samplers, each told its seed and defaults."""

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


class Grid(BruteForceSampler):
    """Each combination once, in an order drawn from the seed; understands conditions."""

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: object
    ) -> None:
        """Nothing: Optuna would stop a loop that is Tune's, and a search counts its points."""


def sampler(settings: SearchSettings, asked: int) -> BaseSampler:
    """An explicit sampler; a resumed one, `asked` before, draws anew and not the same again."""
    seed, startup = settings.seed + asked, settings.startup_trials
    match settings.sampler:
        case "random":
            return RandomSampler(seed=seed)
        case "grid":
            return Grid(seed=seed)
        case "cmaes":  # what it cannot move, such as choices, is drawn at random
            return CmaEsSampler(seed=seed, warn_independent_sampling=False)
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
