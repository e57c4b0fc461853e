"""A killed search loses nothing, and GPU trials equal CPU trials."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest
import torch
from ray.util import placement_group_table
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from dmlray.cluster.resources import Cluster
from dmlray.cluster.search import fold_trainer
from dmlray.cluster.search.run import Job, Resources, resources_of, search
from dmlray.errors import RunError
from dmlray.learn import metrics_log
from dmlray.learn.cross_validation import lockstep
from dmlray.learn.loop import Epoch
from dmlray.learn.preflight import preflight
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.progress import SilentDisplay
from tests.cluster.commands import Command, in_this_process, lines
from tests.toy_data import toy_words

pytestmark = pytest.mark.slow
SEARCH = "searches/proxy_anchor_demo.yaml"
EPOCHS = 3
CPU = torch.device("cpu")
COLLAPSES, WORKS = (
    f"{{method.margin: 0.1, method.alpha: 32, optimizer.lr: {lr}}}" for lr in ("0.1", "0.001")
)


def trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="dmlray", storage=f"sqlite:///{folder / 'study.db'}")
    return study.trials


def logged_epochs(folder: Path) -> dict[int, list[int]]:
    """Return the epochs in the metrics log of each trial."""
    return {
        int(path.parent.name): [json.loads(line)["epoch"] for line in path.open()]
        for path in sorted(folder.glob("trials/*/metrics.jsonl"))
    }


def in_tensorboard(folder: Path) -> dict[int, list[int]]:
    """Return the epochs in each trial's event file; check its HParams against the suggestions."""
    told = {}
    for row in filter(lambda row: row.intermediate_values, trials(folder)):
        (file,) = (folder / f"trials/{row.number:04d}").glob("events.out.tfevents.*")
        board = EventAccumulator(str(file)).Reload()
        told[row.number] = [scalar.step for scalar in board.Scalars("validation/map_at_r")]
        note = board.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
        assert set(metadata.parse_session_start_info_plugin_data(note).hparams) == set(row.params)
    return told


def test_a_search_killed_twice_ends_with_the_requested_trials_and_none_twice(
    tmp_path: Path, toy_images: Path, environment: dict[str, str]
) -> None:
    run = tmp_path / "run"
    words = ["tune", SEARCH, *toy_words(toy_images, EPOCHS), "--trials", "4", "--out", "run"]
    words += ["scheduler=none", "trials_at_once=2"]
    first = Command(words, tmp_path, environment)
    first.until(lambda: lines(run / "trials/0000/metrics.jsonl") >= 1)
    first.kill(signal.SIGKILL)
    first.finish()
    values = {row.number: row.params for row in trials(run)}

    before = logged_epochs(run)
    second = Command(["tune", "--resume", "run"], tmp_path, environment)
    second.until(lambda: len(logged_epochs(run)) >= 3 and logged_epochs(run) != before)
    second.kill(signal.SIGINT)
    status, output = second.finish()
    assert (status, "Traceback" in output) == (130, False), output
    assert output.endswith("Resume with: dmlray tune --resume run\n"), output

    status, output = in_this_process(["tune", "--resume", "run"], tmp_path, environment)
    assert status == 0, output
    rows = trials(run)
    assert Counter(row.state.name for row in rows) == {"COMPLETE": 4}
    assert {row.number: row.params for row in rows if row.number in values} == values
    assert logged_epochs(run) == {number: [1, 2, 3] for number in range(4)}
    assert in_tensorboard(run) == logged_epochs(run)
    assert not list(run.glob("trials/*/fold*/checkpoints"))
    assert (run / "best.yaml").is_file()


def test_trials_on_gpus_equal_those_on_a_cpu_and_free_their_gpus_however_they_end(
    tmp_path: Path, toy_images: Path, fake_gpus: None
) -> None:
    """Two workers train the folds of a trial; one is pruned, and one fold of another fails."""
    import ray

    run = tmp_path / "gpu"
    words = [*toy_words(toy_images, EPOCHS), "trials=3", "gpus=1", "space.optimizer.lr.high=0.1"]
    words += [f"start_from=[{COLLAPSES}, {WORKS}]", "grace_epochs=1", "reduction_factor=2"]
    plan, folder, cpu = read_search(Path(SEARCH), words), RunFolder(run), Runtime(CPU)
    assert resources_of(plan, Cluster(4, 2, 1)) == Resources(cpus=2, gpus=1, workers=2, at_once=1)
    preflight(plan.experiment, folds=True)
    broken = folder.trial(2).fold(1)  # one worker trains this fold; the fold of the other one works
    broken.last_checkpoint.parent.mkdir(parents=True)
    broken.last_checkpoint.write_text("no checkpoint")
    found = search(plan, folder, Resources(1, 1, 2, 1), SilentDisplay())
    assert [row.state for row in found.rows] == ["COMPLETE", "PRUNED", "FAIL"], found
    assert "fold1" in str(found.rows[2].reason)
    end = time.monotonic() + 10
    while ray.available_resources().get("GPU") != 2:
        assert time.monotonic() < end, "an ended trial still holds GPUs"
        time.sleep(0.2)
    ended = (name for name, group in placement_group_table().items() if group["state"] == "REMOVED")
    note = folder.trial(0).path / fold_trainer._GROUP
    note.write_text(next(ended))  # of a killed driver, say
    fold_trainer.release(folder.trial(0))
    assert not note.exists()

    before = trials(run)
    epochs = {row.number: sorted(row.intermediate_values) for row in before[:2]}
    assert epochs == in_tensorboard(run) == {0: [1, 2, 3], 1: [1]}
    for row in before[:2]:
        alone = lockstep(plan.point(row.params), RunFolder(tmp_path / f"{row.number}"), cpu)
        expected = {epoch.number: epoch.metrics["map_at_r"] for epoch in alone}
        assert row.intermediate_values == pytest.approx(
            {epoch: expected[epoch] for epoch in epochs[row.number]}, abs=1e-6
        )
    search(plan, folder, Resources(1, 1, 2, 1), SilentDisplay())  # there is nothing left to do
    assert trials(run) == before


def test_failures_in_a_row_end_a_search_and_it_can_be_resumed(
    tmp_path: Path, fake_gpus: None
) -> None:
    def full(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Iterator[Epoch]:
        raise MemoryError
        yield

    def well(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Iterator[Epoch]:
        metrics_log.append(folder.metrics, {"epoch": 1, "map_at_r": 0.5})
        yield Epoch(1, {"map_at_r": 0.5})

    words = ["budget.epochs=1", "scheduler=none", "failures_in_a_row=2", "trials=4"]
    plan, one = read_search(Path(SEARCH), words), Resources(1, 0, 1, 1)
    with pytest.raises(RunError, match="2 trials in a row failed, 2 of them so: out of memory"):
        search(plan, RunFolder(tmp_path), one, SilentDisplay(), full)
    assert [row.state.name for row in trials(tmp_path)] == ["FAIL"] * 2
    search(plan, RunFolder(tmp_path), one, SilentDisplay(), well)
    assert [row.state.name for row in trials(tmp_path)] == ["FAIL"] * 2 + ["COMPLETE"] * 2


def test_searches_at_once_run_their_own_trials(tmp_path: Path, fake_gpus: None) -> None:
    """Each has two trials at once, of which every second takes longer: their points are equal."""

    def job(slow: int) -> Job:
        def scored(plan: Experiment, folder: RunFolder, runtime: Runtime) -> Iterator[Epoch]:
            time.sleep(1.0 if int(folder.path.name) % 2 == slow else 0.0)
            metrics = {"map_at_r": plan.optimizer.lr + slow}
            metrics_log.append(folder.metrics, {"epoch": 1, **metrics})
            yield Epoch(1, metrics)

        return scored

    words = ["budget.epochs=1", "scheduler=none", "trials=6", "startup_trials=2"]
    plan, two = read_search(Path(SEARCH), words), Resources(1, 0, 1, 2)
    for name in "01":
        (tmp_path / name).mkdir()
    with ThreadPoolExecutor() as threads:
        running = [
            threads.submit(
                search, plan, RunFolder(tmp_path / f"{slow}"), two, SilentDisplay(), job(slow)
            )
            for slow in range(2)
        ]
    one, other = (report.result().rows for report in running)
    assert [row.values for row in one] == [row.values for row in other]
    for slow, rows in enumerate((one, other)):
        assert [row.state for row in rows] == ["COMPLETE"] * 6
        for row in rows:
            assert row.metrics["map_at_r"] == pytest.approx(row.values["optimizer.lr"] + slow)
