"""A search that goes on: what may change, and that nothing else does."""

from pathlib import Path
from typing import Any

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.search import Search, read_search
from dmlray.plans.search_continuation import CHANGEABLE, continued
from dmlray.plans.search_settings import SearchSettings


@pytest.fixture(scope="module")
def plan() -> Search:
    return read_search(Path("searches/proxy_anchor_demo.yaml"), ["sampler=gp", "seed=5"])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("trials", 77, 77),
        ("time_budget", "90m", 5400.0),
        ("failures_in_a_row", 3, 3),
        ("trials_at_once", 2, 2),
        ("folds_at_once", 2, 2),
        ("cpus", 1.5, 1.5),
        ("gpus", 0.25, 0.25),
        ("repeats", 4, 4),
    ],
)
def test_one_change_leaves_all_else_as_it_was(
    plan: Search, key: str, value: Any, expected: Any
) -> None:
    found = continued(plan, {key: value})
    assert found.settings.model_dump() == {**plan.settings.model_dump(), key: expected}
    assert found.identity() == plan.identity()
    assert (found.experiment, found.ranges) == (plan.experiment, plan.ranges)


def test_without_changes_it_is_the_same_plan(plan: Search) -> None:
    assert continued(plan, []) == plan


@pytest.mark.parametrize("key", sorted({*SearchSettings.model_fields} - {*CHANGEABLE}))
def test_no_other_setting_of_a_search_changes(plan: Search, key: str) -> None:
    value = getattr(plan.settings, key)  # not even to what it is
    with pytest.raises(ConfigError, match=f"`resume`.*{key} cannot change while a search goes on"):
        continued(plan, {key: value})


def test_a_value_that_is_not_allowed_is_refused_as_in_a_file(plan: Search) -> None:
    with pytest.raises(ConfigError, match=r"trials: 0 is not allowed\. Allowed: a whole number"):
        continued(plan, ["trials=0"])
