from pathlib import Path

import pytest

from dmlray.errors import ConfigError
from dmlray.plans.ensemble import Ensemble, default_vary, read_ensemble
from dmlray.plans.files import read_experiment

DREML = read_experiment(Path("experiments/dreml_demo.yaml")).experiment
PROXY_ANCHOR = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment


def test_a_member_depends_on_seed_and_index_alone() -> None:
    small, large = Ensemble(DREML, 2, "meta_classes"), Ensemble(DREML, 48, "meta_classes")
    assert small.member(1) == large.member(1)
    seeds = {large.member(i).seed for i in range(48)}
    draws = {large.member(i).method.config.draw_seed for i in range(48)}
    assert len(seeds) == len(draws) == 48


def test_varying_seeds_leaves_the_meta_classes_alone() -> None:
    plan = Ensemble(DREML, 3, "seed")
    assert {plan.member(i).method.config.draw_seed for i in range(3)} == {0}


def test_the_plan_survives_its_own_file(tmp_path: Path) -> None:
    plan = Ensemble(DREML, 5, "meta_classes")
    plan.write(tmp_path / "ensemble.yaml")
    assert read_ensemble(tmp_path / "ensemble.yaml") == plan


@pytest.mark.parametrize(
    ("size", "vary", "complaint"),
    [
        (0, "seed", "0 is not allowed. Allowed: at least 1"),
        (2, "luck", "Allowed: meta_classes, seed"),
        (2, "meta_classes", "proxy_anchor has no meta-classes. Allowed: seed"),
    ],
)
def test_nonsense_is_told_in_one_sentence(size: int, vary: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Ensemble(PROXY_ANCHOR, size, vary)  # type: ignore[arg-type]  # the point of the test


def test_what_varies_follows_from_the_method() -> None:
    assert default_vary(DREML) == "meta_classes"
    assert default_vary(PROXY_ANCHOR) == "seed"
