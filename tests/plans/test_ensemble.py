from pathlib import Path
from typing import Any

import pytest

from dmlray.errors import ConfigError
from dmlray.plans import ensemble as ensemble_module
from dmlray.plans.ensemble import (
    Ensemble,
    cross_validation,
    default_vary,
    read_ensemble,
    repeats,
)
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment

DREML = read_experiment(Path("experiments/dreml_demo.yaml")).experiment
PROXY_ANCHOR = read_experiment(Path("experiments/proxy_anchor_demo.yaml")).experiment


def draw_seed(plan: Ensemble, index: int) -> int:
    config: Any = plan.member(index).method.config
    return int(config.draw_seed)


def test_a_member_depends_on_seed_and_index_alone() -> None:
    small, large = Ensemble(DREML, 2, "meta_classes"), Ensemble(DREML, 48, "meta_classes")
    assert small.member(1) == large.member(1)
    seeds = {large.member(i).seed for i in range(48)}
    draws = {draw_seed(large, i) for i in range(48)}
    assert len(seeds) == len(draws) == 48


def test_varying_seeds_leaves_the_meta_classes_alone() -> None:
    plan = Ensemble(DREML, 3, "seed")
    assert {draw_seed(plan, i) for i in range(3)} == {0}


def test_the_plan_survives_its_own_file(tmp_path: Path) -> None:
    plan = Ensemble(DREML, 5, "meta_classes")
    plan.write(tmp_path / "ensemble.yaml")
    assert read_ensemble(tmp_path / "ensemble.yaml") == plan


@pytest.mark.parametrize(
    ("size", "vary", "complaint"),
    [
        (0, "seed", "0 is not allowed. Allowed: at least 1"),
        (2, "luck", "Allowed: meta_classes, seed, fold, settings"),
        (2, "fold", "protocol.selection=last holds out no fold"),
        (2, "settings", "settings of 1 experiments are not possible"),
        (2, "meta_classes", "proxy_anchor has no meta-classes. Allowed: seed"),
    ],
)
def test_nonsense_is_told_in_one_sentence(size: int, vary: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        Ensemble(PROXY_ANCHOR, size, vary)  # type: ignore[arg-type]  # the point of the test


def test_what_varies_follows_from_the_method() -> None:
    assert default_vary(DREML) == "meta_classes"
    assert default_vary(PROXY_ANCHOR) == "seed"


def test_repeats_never_use_the_seed_that_a_search_trained_with() -> None:
    for own in (0, 7, 2**31 - 1):
        plan = repeats(override(PROXY_ANCHOR, "seed", {"seed": own}), 5)
        seeds = [plan.member(i).seed for i in range(5)]
        assert len(set(seeds)) == 5
        assert own not in seeds
        assert all(seed in range(2**31) for seed in seeds)
    assert plan.member(0).protocol == PROXY_ANCHOR.protocol  # repeated by its own rule
    with pytest.raises(ConfigError, match=r"`size`: 0 is not allowed\. Allowed: at least 1"):
        repeats(PROXY_ANCHOR, 0)


@pytest.mark.parametrize("selection", ["validation", "last", "best_on_test"])
def test_a_cross_validation_chooses_epochs_on_each_fold_whatever_the_experiment_says(
    selection: str, tmp_path: Path
) -> None:
    words = {"protocol.selection": selection, "protocol.folds": 3, "seed": 5}
    plan = cross_validation(override(PROXY_ANCHOR, "words", words))
    members = [plan.member(i) for i in range(plan.size)]
    assert [member.protocol.fold for member in members] == [0, 1, 2]
    assert {(member.protocol.selection, member.seed) for member in members} == {("validation", 5)}
    plan.write(tmp_path / "cross_validation.yaml")
    assert read_ensemble(tmp_path / "cross_validation.yaml") == plan


def test_a_number_of_folds_left_open_is_no_difference_to_the_one_that_was_taken() -> None:
    open_ = read_experiment(Path("experiments/dreml_cub.yaml")).experiment
    assert open_.protocol.folds is None
    taken, other = (override(open_, "test", {"protocol.folds": folds}) for folds in (2, 3))
    begun = Ensemble(taken, 2, "settings", (taken,))
    assert not begun.differences(Ensemble(open_, 2, "settings", (open_,)))
    assert begun.differences(Ensemble(open_, 2, "settings", (other,))) == [
        "others.1.protocol.folds 2, not 3"
    ]


def test_folds_take_turns_and_then_new_seeds() -> None:
    held_out = override(PROXY_ANCHOR, "test", {"protocol.selection": "validation"})
    members = [Ensemble(held_out, 6, "fold").member(index) for index in range(6)]
    assert [member.protocol.fold for member in members] == [0, 1, 2, 3, 0, 1]
    assert [member.seed for member in members] == [0, 0, 0, 0, 4, 5]


def test_settings_take_turns_and_survive_their_file(tmp_path: Path) -> None:
    plan = Ensemble(DREML, 4, "settings", (PROXY_ANCHOR,))
    members = [plan.member(index) for index in range(4)]
    assert [m.method.name for m in members] == ["dreml", "proxy_anchor"] * 2
    assert len({member.seed for member in members}) == 4
    plan.write(tmp_path / "ensemble.yaml")
    assert read_ensemble(tmp_path / "ensemble.yaml") == plan


def test_settings_of_other_images_are_refused() -> None:
    other = override(PROXY_ANCHOR, "test", {"data.name": "folder", "data.root": "x"})
    with pytest.raises(ConfigError, match=r"settings: data\.name is demo and folder"):
        Ensemble(DREML, 2, "settings", (other,))
    with pytest.raises(ConfigError, match="several experiments vary settings alone"):
        Ensemble(DREML, 2, "seed", (PROXY_ANCHOR,))


def test_what_differs_between_two_plans_is_named() -> None:
    faster = override(PROXY_ANCHOR, "test", {"optimizer.lr": 0.01})
    one = Ensemble(DREML, 2, "settings", (PROXY_ANCHOR,))
    other = Ensemble(DREML, 3, "settings", (faster,))
    lr = PROXY_ANCHOR.optimizer.lr
    assert one.differences(other) == [f"others.1.optimizer.lr {lr}, not 0.01", "size 2, not 3"]
    assert one.differences(one) == []


def test_a_damaged_plan_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ensemble.yaml"
    Ensemble(DREML, 2, "seed").write(file)
    file.write_text(file.read_text().replace("size: 2\n", ""))
    with pytest.raises(ConfigError, match="is no plan of an ensemble"):
        read_ensemble(file)


@pytest.mark.parametrize(
    ("old", "new"),
    [("size: 2", f"size: {size}") for size in ("1000000000", "-1", "'2'", "true", "2.5", "[2]")]
    + [("vary: seed", f"vary: {vary}") for vary in ("luck", "[seed]", "{a: b}", "fold")]
    + [("size: 2", f"size: 2\nothers: {others}") for others in ("3", "[3]", "[{}]")]
    + [
        ("size: 2", "size: 2\nunknown: 1"),
        ("size: 2", "size: 2\nothers: {a: 1}"),
        ("experiment:", "experimen:"),
    ],
)
def test_a_plan_of_an_ensemble_with_unfit_values_is_refused(
    tmp_path: Path, old: str, new: str
) -> None:
    file = tmp_path / "ensemble.yaml"
    Ensemble(DREML, 2, "seed").write(file)
    file.write_text(file.read_text().replace(old, new))
    with pytest.raises(ConfigError) as caught:
        read_ensemble(tmp_path / "ensemble.yaml")
    assert "ensemble.yaml: " in str(caught.value)
    assert len(str(caught.value)) < 500


def test_each_member_is_made_and_validated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(experiment: Experiment, name: str, values: dict[str, Any]) -> Experiment:
        made.append(name)
        return override(experiment, name, values)

    monkeypatch.setattr(ensemble_module, "override", counted)
    plan = Ensemble(PROXY_ANCHOR, 3, "seed")
    first = [plan.member(index) for index in range(3)]
    assert [plan.member(index) for index in range(3)] == first
    assert made == ["member 0", "member 1", "member 2"]
    assert len({member.seed for member in first}) == 3
