"""Epochs are logged by the loggers of the plan, under the classes that they were scored on."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dmlray.cluster.reporters import EpochLogger
from dmlray.errors import ConfigError
from dmlray.learn.loop import Epoch
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.reporting.test_run_report import scores

EPOCHS = [Epoch(1, {"loss": 2.0, "map_at_r": 0.25}), Epoch(2, {"loss": 1.0, "map_at_r": 0.5})]


def plan(*words: str) -> Experiment:
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


def logged(folder: Path) -> dict[str, list[tuple[int, float]]]:
    (file,) = folder.glob("events.out.tfevents.*")
    found = EventAccumulator(str(file)).Reload()
    return {
        tag: [(scalar.step, round(scalar.value, 6)) for scalar in found.Scalars(tag)]
        for tag in found.Tags()["scalars"]
    }


def run(plan: Experiment, folder: Path, **changes: Any) -> None:
    with closing(EpochLogger(plan, RunFolder(folder))) as logger:
        for epoch in EPOCHS:
            logger(epoch)
        logger.finish(scores(**changes))


def test_epochs_and_final_scores_have_a_group_each(tmp_path: Path) -> None:
    run(plan("protocol.selection=validation"), tmp_path)
    found = logged(tmp_path)
    assert found["train/loss"] == [(1, 2.0), (2, 1.0)]
    assert found["validation/map_at_r"] == [(1, 0.25), (2, 0.5)]
    assert found["test/map_at_r"] == [(2, 0.25)]


def test_epochs_scored_on_the_test_classes_are_not_called_validation(tmp_path: Path) -> None:
    run(plan("protocol.selection=best_on_test"), tmp_path)
    found = logged(tmp_path)
    assert found["test/map_at_r"] == [(1, 0.25), (2, 0.5)]
    assert not [tag for tag in found if tag.startswith("validation/")]


def test_a_finished_run_keeps_what_it_logged(tmp_path: Path) -> None:
    run(plan(), tmp_path)
    before = logged(tmp_path)
    with closing(EpochLogger(plan(), RunFolder(tmp_path))) as logger:
        logger.finish(scores())  # read from the folder: no epoch is reported
    assert logged(tmp_path) == before


def test_a_plan_without_loggers_logs_nothing(tmp_path: Path) -> None:
    run(plan("loggers=[]"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("loggers=[wandb,wandb]", r"loggers: 'wandb' is named twice\. Allowed: once"),
        ("loggers=tensorboard", "loggers"),
    ],
)
def test_a_list_of_loggers_that_is_none_is_refused(word: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        plan(word)
