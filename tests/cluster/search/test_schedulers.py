"""Bad trials are stopped, the published one never, and past ones are replayed."""

from pathlib import Path

import pytest
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler

from dmlray.cluster.search.schedulers import scheduler
from dmlray.plans.search import Search, read_search

SEARCH = Path("searches/proxy_anchor_demo.yaml")
EPOCHS = 4
GOOD = [(number, [{"epoch": e, "map_at_r": 0.9} for e in range(1, EPOCHS)]) for number in range(6)]
BAD = [(6, [{"epoch": e, "map_at_r": 0.1} for e in range(1, EPOCHS + 1)])]


def plan(rule: str, *words: str) -> Search:
    common = [f"scheduler={rule}", f"budget.epochs={EPOCHS}", "grace_epochs=1"]
    return read_search(SEARCH, [*common, "reduction_factor=2", *words])


def decisions(rule: str, name: str) -> list[str]:
    """Return the decisions on a bad trial after each epoch, given past trials."""
    judge = scheduler(plan(rule), lambda trial: trial == "published", [*GOOD, *BAD])
    trial = Trial("x", trial_id=name, stub=True)
    judge.on_trial_add(None, trial)
    decisions = []
    for epoch in range(1, EPOCHS):
        decisions.append(judge.on_trial_result(None, trial, {"epoch": epoch, "map_at_r": 0.2}))
        if decisions[-1] == "STOP":
            break
    return decisions


@pytest.mark.parametrize("rule", ["asha", "median"])
def test_a_bad_trial_is_stopped_unless_it_is_the_published_one(rule: str) -> None:
    assert decisions(rule, "other") == ["STOP"]
    assert decisions(rule, "published") == ["CONTINUE"] * (EPOCHS - 1)


def test_nothing_is_stopped_without_a_rule_or_with_several_metrics() -> None:
    several = plan("asha", "metric=[map_at_r,seconds]")
    for search in (plan("none"), several):
        assert type(scheduler(search, lambda trial: False, GOOD)) is FIFOScheduler
