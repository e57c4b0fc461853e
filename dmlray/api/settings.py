"""Plans as Python objects, and what is in them."""

from dmlray.plans.config_sources import Overrides
from dmlray.plans.ensemble import Ensemble
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import ExperimentSource
from dmlray.plans.resolve import read_experiment as resolve_experiment
from dmlray.plans.search import SearchSource
from dmlray.reporting.settings_table import SettingsTable, settings_table


def read_experiment(experiment: ExperimentSource, overrides: Overrides = ()) -> Experiment:
    """Read and check an experiment.

    Args:
        experiment: A file, its content, or an `Experiment`.
        overrides: Dotted key -> value, above the experiment's own.

    Raises:
        ConfigError: Lists all problems at once.
    """
    return resolve_experiment(experiment, overrides).experiment


def show(
    plan: ExperimentSource | SearchSource | Ensemble, overrides: Overrides = ()
) -> SettingsTable:
    """List the settings of an experiment, a search or an ensemble with their origins.

    Args:
        plan: A file, its content, or a plan.
        overrides: Dotted key -> value, above the plan's own.

    Raises:
        ConfigError: Lists all problems at once.
    """
    return settings_table(plan, overrides)
