"""What may change when a search goes on."""

from dataclasses import replace

from dmlray.errors import ConfigError
from dmlray.nearest_names import nearest_or_all
from dmlray.plans.config_sources import ConfigSource, Overrides, read_overrides
from dmlray.plans.search import Search, read_settings

CHANGEABLE = (
    "trials", "time_budget", "failures_in_a_row", "trials_at_once", "folds_at_once", "cpus", "gpus",
    "repeats",
)  # fmt: skip


def continued(plan: Search, overrides: Overrides) -> Search:
    """The plan of a begun search with more trials, another budget or other resources.

    Raises:
        ConfigError: If an override changes anything else, or has a value that is not allowed.
    """
    changes = read_overrides(overrides)
    fixed = [key for key in changes.values if key not in CHANGEABLE]
    if fixed:
        listed = nearest_or_all(fixed[0], CHANGEABLE)
        problem = f"{fixed[0]} cannot change while a search goes on.{listed}"
        raise ConfigError("`resume`", [problem])
    current = ConfigSource("search.yaml", plan.settings.model_dump(mode="json"))
    settings, _ = read_settings("`resume`", [current, changes])
    return replace(plan, settings=settings)
