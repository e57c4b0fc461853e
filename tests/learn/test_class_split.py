"""A data set is listed only once in a run."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dmlray.data.datasets import registry
from dmlray.learn.class_split import Listed, listed_once, load_dataset
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from tests.toy_data import SIDE, draw_images, toy_words

DEMO = "experiments/proxy_anchor_demo.yaml"


@pytest.fixture
def plan(tmp_path: Path) -> Experiment:
    return read_experiment(DEMO, toy_words(draw_images(tmp_path / "images", 4, 2))).experiment


@pytest.fixture
def listings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    load, listed = registry.load, []

    def counted(name: str, *rest: Any) -> Any:
        listed.append(name)
        return load(name, *rest)

    monkeypatch.setattr(registry, "load", counted)
    return listed


def test_a_run_lists_and_hashes_its_data_once(plan: Experiment, listings: list[str]) -> None:
    other = read_experiment(plan, {"seed": 5, "optimizer.lr": 0.1}).experiment
    with listed_once():
        first = load_dataset(plan)
        with listed_once():  # a nested run
            assert load_dataset(other) is first
    assert listings == ["folder"]


def test_the_next_run_sees_changes(plan: Experiment, listings: list[str]) -> None:
    with listed_once():
        before = load_dataset(plan).fingerprint
    assert plan.data.root is not None
    Image.new("RGB", (SIDE, SIDE), "red").save(plan.data.root / "class00" / "0.png")
    with listed_once():
        assert load_dataset(plan).fingerprint != before
    load_dataset(plan)
    load_dataset(plan)
    assert listings == ["folder"] * 4


def test_another_data_set_or_way_of_reading_it_is_listed_again(
    plan: Experiment, listings: list[str]
) -> None:
    known: Listed = {}
    changes: dict[str, Any]
    for changes in (
        {},
        {"data.split": "classes"},
        {"data.skip_broken": True},
        {"data.name": "demo"},
    ):
        changes = {**changes, "data.root": None} if "data.name" in changes else changes
        with listed_once(known):  # as a worker does, member after member
            load_dataset(read_experiment(plan, changes).experiment)
    assert listings == ["folder", "folder", "demo"]
