"""A search that is killed loses nothing, and GPU trials are what CPU trials are."""

import json
import signal
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from dmlray import api
from tests.cluster.commands import Command, lines
from tests.toys import toy_words

pytestmark = pytest.mark.slow
SEARCH = "searches/proxy_anchor_demo.yaml"
EPOCHS = 3


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="dmlray", storage=f"sqlite:///{folder / 'study.db'}")
    return study.trials


def epochs_said(folder: Path) -> dict[int, list[int]]:
    """Epochs in the journal of each trial."""
    return {
        int(path.parent.name): [json.loads(line)["epoch"] for line in path.open()]
        for path in sorted(folder.glob("trials/*/metrics.jsonl"))
    }


def test_a_search_killed_twice_ends_with_the_asked_trials_and_none_twice(
    tmp_path: Path, toy_images: Path, environment: dict[str, str]
) -> None:
    run = tmp_path / "run"
    words = ["tune", SEARCH, *toy_words(toy_images, EPOCHS), "--trials", "6", "--out", "run"]
    words += ["scheduler=none", "trials_at_once=2"]
    first = Command(words, tmp_path, environment)
    first.until(lambda: lines(run / "trials/0000/metrics.jsonl") >= 1)
    first.kill(signal.SIGKILL)
    first.finish()
    values = {row.number: row.params for row in trials(run)}

    second = Command(["tune", "--resume", "run"], tmp_path, environment)
    second.until(lambda: len(epochs_said(run)) >= 3)
    second.kill(signal.SIGINT)
    status, said = second.finish(seconds=60)
    assert status == 130
    assert "Go on with: dmlray tune --resume run" in said
    assert "Traceback" not in said

    status, said = Command(["tune", "--resume", "run"], tmp_path, environment).finish()
    assert status == 0, said
    rows = trials(run)
    assert Counter(row.state.name for row in rows) == {"COMPLETE": 6}
    assert {row.number: row.params for row in rows if row.number in values} == values
    assert epochs_said(run) == {number: [1, 2, 3] for number in range(6)}
    for number in range(6):
        assert len(list((run / f"trials/{number:04d}").glob("events.out.tfevents.*"))) == 1
    assert not list(run.glob("trials/*/fold*/checkpoints"))
    assert (run / "best.yaml").is_file()

    status, said = Command(["tune", "--resume", "run"], tmp_path, environment).finish()
    assert status == 0
    assert len(trials(run)) == 6


def test_gpu_trials_score_as_cpu_trials_and_free_what_they_held(
    tmp_path: Path, toy_images: Path, fake_gpus: None
) -> None:
    import ray

    words = [*toy_words(toy_images, EPOCHS), "trials=3", "grace_epochs=1", "reduction_factor=2"]
    for folder, extra in (("cpu", ["gpus=0", "trials_at_once=1"]), ("gpu", ["gpus=1"])):
        api.tune(Path(SEARCH), [*words, *extra], out=tmp_path / folder)
    end = time.monotonic() + 10
    while ray.available_resources().get("GPU") != 2:
        assert time.monotonic() < end, "an ended trial still holds GPUs"
        time.sleep(0.2)
    for ours, theirs in zip(trials(tmp_path / "cpu"), trials(tmp_path / "gpu"), strict=True):
        assert ours.params == theirs.params
        assert ours.state == theirs.state
        assert ours.intermediate_values == pytest.approx(theirs.intermediate_values, abs=1e-6)
    states = {row.state.name for row in trials(tmp_path / "gpu")}
    assert "COMPLETE" in states
