"""Run a training from plan to scores: resumable and deterministic."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dmlray.data.folds import train_subset
from dmlray.data.unseen import test_subset as unseen
from dmlray.errors import DataError, RunError
from dmlray.evaluation.clustering import Progress, clustering_scores
from dmlray.learn import metrics_log, run
from dmlray.learn.class_split import fold_split, full_split, load_dataset
from dmlray.learn.cross_validation import Clock, lockstep, mean_over_folds
from dmlray.learn.head_warmup import warm_up_heads
from dmlray.learn.loop import Epoch
from dmlray.learn.preflight import preflight
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.trainer import Training
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import Scores, read_scores
from tests.epoch_logs import epochs_of, without_times
from tests.toy_data import draw_images, toy_words

RUNTIME = Runtime(torch.device("cpu"))


class KilledError(Exception):
    """Raised in place of a kill between two epochs."""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    images = draw_images(tmp_path_factory.mktemp("toys") / "images")
    return read_experiment(
        Path("experiments/proxy_anchor_demo.yaml"), [*toy_words(images, 4), "protocol.folds=2"]
    ).experiment


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def train(plan: Experiment, folder: RunFolder, killed_after: int | None = None) -> Scores:
    def report(epoch: Epoch) -> None:
        if epoch.number == killed_after:
            raise KilledError

    return run_training(plan, folder, report, RUNTIME)


def test_a_killed_training_ends_with_the_scores_of_an_uninterrupted_one(
    plan: Experiment, tmp_path: Path
) -> None:
    calm, torn = RunFolder(tmp_path / "calm"), RunFolder(tmp_path / "torn")
    expected = train(plan, calm)
    for epoch in (1, 3):
        with pytest.raises(KilledError):
            train(plan, torn, killed_after=epoch)
    assert train(plan, torn) == expected
    assert epochs_of(torn.metrics) == epochs_of(calm.metrics)
    np.testing.assert_array_equal(np.load(torn.embeddings), np.load(calm.embeddings))
    assert evaluate(plan, torn, RUNTIME) == expected


def test_log_lines_after_the_checkpoint_are_written_again(plan: Experiment, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        train(plan, folder, killed_after=2)
    metrics_log.append(folder.metrics, {"epoch": 3, "loss": 99.0})
    train(plan, folder)
    lines = metrics_log.read(folder.metrics)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[2]["loss"] != 99.0


def test_scores_depend_on_the_seed_only(plan: Experiment, tmp_path: Path) -> None:
    losses = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        folder = RunFolder(tmp_path / name)
        train(override(plan, "test", {"seed": seed, "budget.epochs": 1}), folder)
        losses.append(metrics_log.read(folder.metrics)[0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_validation_keeps_the_epoch_that_is_best_on_held_out_classes(
    plan: Experiment, tmp_path: Path
) -> None:
    chosen = override(plan, "test", {"protocol.selection": "validation"})
    folder = RunFolder(tmp_path / "run")
    scores = train(chosen, folder)
    lines = metrics_log.read(folder.metrics)
    best = max(lines, key=lambda line: line["map_at_r"])["epoch"]
    kept = torch.load(folder.best_checkpoint, weights_only=True)["progress"]
    assert kept["best_epoch"] == best
    assert scores.selection == "validation"


def test_nmi_is_optional_and_names_its_implementation(plan: Experiment, tmp_path: Path) -> None:
    asked = override(plan, "test", {"protocol.nmi": True, "budget.epochs": 1})
    scores = train(asked, RunFolder(tmp_path / "run"))
    assert 0 < scores.metrics["nmi"] <= 1
    assert scores.clustering == "faiss k-means, 20 iterations, seed 1234"


def test_iterations_of_k_means_are_written_to_the_folder(
    plan: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, reported, cluster = RunFolder(tmp_path / "run"), list[Any](), clustering_scores

    def scores(embeddings: Any, labels: Any, names: Any, progress: Progress) -> dict[str, float]:
        def listen(done: int, total: int) -> None:
            progress(done, total)
            reported.append(metrics_log.counted(folder.progress_log))

        return cluster(embeddings, labels, names, progress=listen)

    monkeypatch.setattr(run, "clustering_scores", scores)
    train(override(plan, "test", {"protocol.nmi": True, "budget.epochs": 1}), folder)
    assert reported == [metrics_log.Count("k-means, iterations", done, 20) for done in range(1, 21)]
    assert not folder.progress_log.exists()


def test_training_validation_and_test_classes_are_disjoint(plan: Experiment) -> None:
    dataset = load_dataset(plan)
    tasks = [fold_split(plan, dataset, fold) for fold in range(plan.protocol.folds)]
    for split in tasks:
        assert split.validation is not None
        sides = [set(part.classes) for part in (split.train, split.validation, unseen(dataset))]
        assert sum(map(len, sides)) == len(set().union(*sides)) == len(dataset.classes)
    assert set(train_subset(dataset).classes) == set(full_split(dataset).train.classes)


def test_lockstep_is_the_mean_of_folds_trained_one_by_one(plan: Experiment, tmp_path: Path) -> None:
    side_by_side = list(lockstep(plan, RunFolder(tmp_path / "trial"), RUNTIME))
    dataset = load_dataset(plan)
    alone = [
        list(
            Training(
                plan, fold_split(plan, dataset, fold), RunFolder(tmp_path / f"{fold}"), RUNTIME
            ).epochs()
        )
        for fold in range(2)
    ]
    for epoch, *folds in zip(side_by_side, *alone, strict=True):
        assert epoch.metrics["seconds"] > 0
        assert without_times(epoch.metrics) == without_times(
            mean_over_folds([fold.metrics for fold in folds], "map_at_r")
        )
        scores = [fold.metrics["map_at_r"] for fold in folds]
        assert epoch.metrics["map_at_r"] == pytest.approx(sum(scores) / 2)
        assert epoch.metrics["map_at_r_std"] == pytest.approx(abs(scores[0] - scores[1]) / 2)


def test_head_warm_up_does_not_change_the_trunk(plan: Experiment, tmp_path: Path) -> None:
    split = full_split(load_dataset(plan))
    training = Training(plan, split, RunFolder(tmp_path / "run"), RUNTIME)
    before = {key: value.clone() for key, value in training.learner.state_dict().items()}
    features = training.embed(training.trunk, split.train).clone()
    warm_up_heads(training.learner, features, split.train.labels, plan)
    for key, value in training.learner.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("trunk."), key


def test_frozen_statistics_do_not_change_while_weights_do(plan: Experiment, tmp_path: Path) -> None:
    training = Training(plan, full_split(load_dataset(plan)), RunFolder(tmp_path / "run"), RUNTIME)
    before = {key: value.clone() for key, value in training.learner.state_dict().items()}
    next(training.epochs())
    after = training.learner.state_dict()
    statistics = [key for key in before if "running_" in key]
    assert statistics
    assert all(torch.equal(before[key], after[key]) for key in statistics)
    assert not all(torch.equal(before[key], after[key]) for key in before if ".bn" in key)


@pytest.mark.parametrize(("size", "each"), [(20, 2), (8, 1), (6, 3)])
def test_head_warm_up_repeats_classes_where_the_training_does(
    plan: Experiment, tmp_path: Path, size: int, each: int
) -> None:
    """Six classes train: batches of more are allowed, as DCML's authors draw them."""
    words = {
        "data.batch_size": size, "data.images_per_class": each, "data.replacement": "classes",
        "budget.head_warmup_steps": 3, "budget.epochs": 1,
    }  # fmt: skip
    few = override(plan, "few", words)
    preflight(few)
    scores = run_training(few, RunFolder(tmp_path), lambda epoch: None, RUNTIME, False)
    assert scores.metrics


def test_a_frozen_trunk_is_trained_after_warm_up(plan: Experiment, tmp_path: Path) -> None:
    rested = override(plan, "test", {"budget.warmup_epochs": 1, "budget.epochs": 2})
    training = Training(
        rested, full_split(load_dataset(plan)), RunFolder(tmp_path / "run"), RUNTIME
    )
    weights = [p.clone() for p in training.trunk.parameters()]
    epochs = training.epochs()
    next(epochs)
    assert all(map(torch.equal, weights, training.trunk.parameters()))
    next(epochs)
    assert not all(map(torch.equal, weights, training.trunk.parameters()))


def test_a_loss_that_is_not_finite_is_reported_with_its_epoch(
    plan: Experiment, tmp_path: Path
) -> None:
    training = Training(plan, full_split(load_dataset(plan)), RunFolder(tmp_path / "run"), RUNTIME)
    with torch.no_grad():
        next(training.trunk.parameters()).fill_(torch.nan)
    with pytest.raises(RunError, match="epoch 1: the loss is not finite"):
        list(training.epochs())


def test_seconds_of_an_earlier_session_count_without_the_time_between() -> None:
    clock = Clock([{"epoch": 1, "seconds": 100.0}, {"epoch": 2, "seconds": 250.0}])
    assert [clock.at(1), clock.at(2)] == [100.0, 250.0]
    assert 250.0 < clock.at(3) < 260.0


@pytest.mark.parametrize("lines", [slice(1, None), slice(0, 1)])
def test_folds_whose_metrics_lack_an_epoch_are_not_averaged(
    plan: Experiment, tmp_path: Path, lines: slice
) -> None:
    """The mean would be over different epochs."""
    short, folder = override(plan, "test", {"budget.epochs": 2}), RunFolder(tmp_path / "trial")
    list(lockstep(short, folder, RUNTIME))
    metrics = folder.fold(1).metrics
    metrics.write_bytes(b"".join(metrics.read_bytes().splitlines(keepends=True)[lines]))
    with pytest.raises(DataError, match=r"fold1/metrics\.jsonl: lacks epoch"):
        list(lockstep(short, folder, RUNTIME))


def test_a_run_that_is_not_finished_is_not_evaluated(plan: Experiment, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KilledError):
        train(plan, folder, killed_after=2)
    with pytest.raises(DataError, match="is of epoch 2, its plan has 4; resume"):
        evaluate(plan, folder, RUNTIME)


def test_the_scores_have_the_hash_of_the_embeddings(plan: Experiment, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    scores = train(override(plan, "test", {"budget.epochs": 1}), folder)
    assert scores.embeddings_sha256 == sha256(folder.embeddings.read_bytes()).hexdigest()
    assert read_scores(folder.scores).embeddings_sha256 == scores.embeddings_sha256
