"""The estimate of a plan follows from the probe and from the cluster's parallelism."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from dmlray import api
from dmlray.cluster import forecast
from dmlray.cluster.benchmark_forecast import BenchmarkForecast, CellForecaster
from dmlray.cluster.resources import Cluster
from dmlray.cluster.search.run import Resources
from dmlray.data.dataset import Dataset, from_ordered
from dmlray.errors import DataError, ResourceError
from dmlray.learn.probe import Probe
from dmlray.plans.benchmark import read_benchmark
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.search import read_search
from dmlray.scores import read_scores
from tests.toy_data import toy_words

SEARCH = Path("searches/proxy_anchor_demo.yaml")  # 6 trials of 2 folds
FOUND = Probe(
    start=10,
    step=2.0,
    steps=5,
    image=0.5,
    train_images=40,
    scored_images=20,
    memory=1000,
    gpu_memory=0,
    held=100,
)


@pytest.fixture
def dataset() -> Dataset:
    """Two classes of 30 images to train, one of 30 to test."""
    files = [f"{number:02d}.png" for number in range(30)]
    return from_ordered("drawn", Path(), [(name, files) for name in "abc"], 2)


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "_probe", lambda plan, resources, folds: FOUND)


def test_a_search_takes_the_time_of_its_trials_by_turns(probed: None, dataset: Dataset) -> None:
    words = ["budget.epochs=3", "budget.head_warmup_steps=0"]
    fold = 10 + 3 * (5 * 2.0 + 20 * 0.5)
    laptop = forecast.of_search(read_search(SEARCH, words), dataset, Cluster(2, 0, 1))
    assert laptop.seconds == 3 * 2 * fold  # two of six trials at once, two folds by turns
    assert laptop.memory == 1000 + 100  # both folds live in one process
    assert laptop.stops_early

    gpus = forecast.of_search(read_search(SEARCH, words), dataset, Cluster(16, 4, 1))
    assert gpus.seconds == 3 * (1 * fold + forecast._TRAIN_START)
    assert gpus.memory == 1000

    spread = read_search(SEARCH, [*words, "folds_at_once=2"])  # on Ray Train without GPUs, too
    cores = forecast.of_search(spread, dataset, Cluster(2, 0, 1))
    assert cores.seconds == 6 * (1 * fold + forecast._TRAIN_START)


def test_repeats_and_head_warmup_count(probed: None, dataset: Dataset) -> None:
    words = ["budget.epochs=3", "budget.head_warmup_steps=0", "trials=1"]
    plan = read_search(SEARCH, words)
    alone = forecast.of_search(plan, dataset, Cluster(2, 0, 1)).seconds
    more = forecast.of_search(read_search(SEARCH, [*words, "repeats=3"]), dataset, Cluster(2, 0, 1))
    whole = 10 + 3 * 5 * 60 / 40 * 2.0 + 30 * 0.5  # 60 training images, 30 test images
    assert more.seconds - alone == 2 * whole  # three on two cores
    words[1] = "budget.head_warmup_steps=5"
    warm = forecast.of_search(read_search(SEARCH, words), dataset, Cluster(2, 0, 1)).seconds
    assert warm - alone == 2 * 40 * 0.5  # each fold's images are embedded once


def test_features_of_a_frozen_trunk_count_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["budget.epochs=3", "backbone.frozen=true", "trials=1"]
    frozen = replace(FOUND, feature=0.25)
    monkeypatch.setattr(forecast, "_probe", lambda plan, resources, folds: frozen)
    fold = 10 + 3 * (5 * 2.0 + 20 * 0.5)  # head warm-up takes the same features
    found = forecast.of_search(read_search(SEARCH, words), dataset, Cluster(1, 0, 1))
    assert found.seconds == 2 * fold + 2 * 90 * 0.25  # two folds of all 90 images


def test_a_benchmark_probes_each_method_once(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed = []

    def probe(plan: Experiment, resources: Resources, folds: bool) -> Probe:
        probed.append(plan.method.name)
        return replace(FOUND, train_images=30, scored_images=30)

    monkeypatch.setattr(forecast, "_probe", probe)
    plan = read_benchmark({
        "budget": {"trials": 2, "folds": 2, "repeats": 3, "epochs": 1},
        "set": {"budget.head_warmup_steps": 0},
        "datasets": {"one": {"name": "demo"}, "two": {"name": "folder", "root": "x"}},
        "methods": {
            "one": "experiments/proxy_anchor_demo.yaml",
            "eight": {"experiment": "experiments/dreml_demo.yaml", "members": 8},
        },
    })  # fmt: skip
    forecaster = CellForecaster(Cluster(1, 0, 1))
    cells = [forecaster.forecast(cell, dataset) for cell in plan.cells]
    assert probed == ["proxy_anchor", "dreml"]
    assert [cell.trainings for cell in cells] == [10, 4 + 2 * 3 * 8] * 2
    fold, repeat = 10 + 5 * 2.0 + 30 * 0.5, 10 + 5 * 60 / 30 * 2.0 + 30 * 0.5
    assert cells[2].seconds == 4 * fold + 6 * repeat + 3 * 10
    assert cells[1].disk == 48 * 100
    found = BenchmarkForecast(cells, at_once=2)
    assert found.seconds == sum(cell.seconds for cell in cells) / 2


def test_an_experiment_is_one_training_and_one_evaluation_of_the_test_images(
    probed: None, dataset: Dataset
) -> None:
    words = ["budget.epochs=3", "budget.head_warmup_steps=0"]
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment
    found = forecast.of_experiment(plan, dataset, Cluster(2, 0, 1))
    training = 10 + 3 * (5 * 2.0 + 20 * 0.5)
    assert found.seconds == forecast._TRAIN_START + training + 30 * 0.5
    assert (found.trials, found.folds, found.resources.at_once) == (1, 1, 1)


@pytest.mark.slow
def test_a_search_is_planned_then_run_and_its_winner_repeated_on_new_seeds(
    tmp_path: Path, toy_images: Path, fake_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [*toy_words(toy_images), "trials=2", "repeats=2", "gpus=0", "scheduler=none"]
    words += ["trials_at_once=1"]  # one process trains both
    found = api.plan(SEARCH, words)
    assert isinstance(found, forecast.Forecast)
    assert (found.trials, found.folds, found.repeats) == (2, 2, 2)
    assert found.seconds > 0
    assert found.memory > 100 << 20
    assert not list(tmp_path.iterdir())

    report, run = api.tune(SEARCH, words, out=tmp_path / "run")
    scores = read_scores(run.repeat.scores)
    assert [part.seed for part in scores.parts] == [1, 2]  # the trials trained with 0
    assert (scores.n, scores.selection, scores.split) == (2, "last", "all training classes")
    assert "best of 2 trials" in (scores.tuned_by or "")
    winner = read_experiment(run.repeat.member(0).plan("experiment")).experiment.document()
    assert report.best
    assert winner["optimizer"]["lr"] == report.best.values["optimizer.lr"]

    kept = run.repeat.member(0).scores.stat().st_mtime_ns
    run.repeat.member(1).scores.unlink()
    run.repeat.scores.unlink()  # as after a kill during the repeats
    api.tune(resume=run.path)
    assert read_scores(run.repeat.scores) == scores
    assert run.repeat.member(0).scores.stat().st_mtime_ns == kept


@pytest.mark.slow
def test_an_error_of_the_probe_is_one_sentence(
    toy_images: Path, fake_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: object) -> None:
        raise DataError("7.png: cannot be read")

    def killed(*_: object) -> None:
        os._exit(9)

    words = [*toy_words(toy_images), "gpus=0"]
    monkeypatch.setattr(forecast, "_on_worker", damaged)
    with pytest.raises(DataError, match=r"^7.png: cannot be read$"):
        api.plan(SEARCH, words)
    monkeypatch.setattr(forecast, "_on_worker", killed)
    with pytest.raises(ResourceError, match="memory is exhausted"):
        api.plan(SEARCH, words)
