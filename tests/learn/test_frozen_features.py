"""A frozen trunk computes its features once; the heads learn from them as from images."""

from pathlib import Path

import pytest
import torch

from dmlray import backbones
from dmlray.data.folds import Subset, train_subset
from dmlray.data.unseen import test_subset as unseen
from dmlray.learn import frozen_features
from dmlray.learn.class_split import fold_split, load_dataset
from dmlray.learn.cross_validation import lockstep
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.shared_features import sharing_features
from dmlray.learn.trainer import Training
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import read_scores
from tests.toy_data import draw_images, toy_words

HERE = Runtime(torch.device("cpu"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    images = draw_images(tmp_path_factory.mktemp("toys") / "images")
    words = ["protocol.folds=2", "backbone.frozen=true", "budget.head_warmup_steps=0"]
    file = Path("experiments/proxy_anchor_demo.yaml")
    return read_experiment(file, [*toy_words(images, 3), *words]).experiment


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setattr(frozen_features, "_features", type(frozen_features._features)())


def test_the_trunk_stays_and_the_heads_learn(plan: Experiment, tmp_path: Path) -> None:
    training = Training(plan, fold_split(plan, load_dataset(plan), 0), RunFolder(tmp_path), HERE)
    before = {key: value.clone() for key, value in training.learner.state_dict().items()}
    losses = [epoch.metrics["loss"] for epoch in training.epochs()]
    assert losses[-1] < losses[0]
    for key, value in training.learner.state_dict().items():
        assert torch.equal(value, before[key]) == key.startswith("trunk."), key


def test_batches_hold_the_features_of_their_images(plan: Experiment, tmp_path: Path) -> None:
    split = fold_split(plan, load_dataset(plan), 0)
    training = Training(plan, split, RunFolder(tmp_path), HERE)
    batches = list(training.eval_batches(split.train).evaluation())
    with torch.inference_mode():
        known = training.trunk.eval()(torch.cat([images for images, _ in batches]))
    labels = torch.cat([labels for _, labels in batches])
    for features, their_labels, *_ in training.train_batches().epoch(1):
        rows = torch.cdist(features, known).argmin(1)
        torch.testing.assert_close(features, known[rows])
        assert labels[rows].tolist() == their_labels.tolist()


def test_scores_are_those_of_the_images(plan: Experiment, tmp_path: Path) -> None:
    """Embedding features in blocks is embedding images."""
    dataset = load_dataset(plan)
    training = Training(plan, fold_split(plan, dataset, 0), RunFolder(tmp_path), HERE)
    for _ in training.epochs():
        pass
    subset = unseen(dataset)
    images = torch.cat([batch for batch, _ in training.eval_batches(subset).evaluation()])
    with torch.inference_mode():
        expected = training.learner.eval().embed(images)
    torch.testing.assert_close(training.score(subset)[0], expected)


def test_the_trunk_runs_once_per_fold_whatever_the_settings(
    plan: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed, embed = list[int](), Training.embed

    def counted(training: Training, function: object, subset: object) -> torch.Tensor:
        if function is training.trunk:
            computed.append(1)
        return embed(training, function, subset)  # type: ignore[arg-type]

    monkeypatch.setattr(Training, "embed", counted)
    for number, margin in enumerate((0.1, 0.2, 0.3)):
        trial = override(plan, "trial", {"method.margin": margin})
        list(lockstep(trial, RunFolder(tmp_path / str(number)), HERE))
    assert len(computed) == 2  # each fold is trained on once and validated on once


def test_a_finished_run_is_scored_again_from_its_checkpoint(
    plan: Experiment, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    scores = run_training(plan, folder, lambda epoch: None, HERE)
    frozen_features._features.clear()
    assert evaluate(plan, folder, HERE).metrics == scores.metrics


def test_trainings_of_a_run_share_the_features_of_the_untrained_trunk(
    plan: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frozen or not: in folds, in head warm-up and in zero-shot scores; equal to their own."""
    computed, embed = list[int](), Training.embed

    def counted(training: Training, function: object, subset: Subset) -> torch.Tensor:
        if function is training.trunk:
            computed.append(len(subset))
        return embed(training, function, subset)  # type: ignore[arg-type]

    dataset = load_dataset(plan)
    own = Training(plan, fold_split(plan, dataset, 0), RunFolder(tmp_path / "own"), HERE)
    expected = own.pooled(own.split.train)
    monkeypatch.setattr(Training, "embed", counted)
    run = RunFolder(tmp_path)
    with sharing_features(run):
        for number in range(2):
            frozen_features._features.clear()  # as in another process
            folder = run.trial(number).fold(number)
            training = Training(plan, fold_split(plan, dataset, number), folder, HERE)
            training.pooled(training.split.train)
        warm = override(plan, "warm", {"backbone.frozen": False, "budget.head_warmup_steps": 1})
        learner = Training(warm, fold_split(plan, dataset, 0), run.member(0), HERE)
        torch.testing.assert_close(learner.pooled(learner.split.train), expected)
        assert computed == [len(train_subset(dataset))]
        for _ in learner.epochs():  # warms up its heads, then trains the trunk
            pass
        assert computed == [len(train_subset(dataset))]
    assert not list(tmp_path.glob(".features"))


def test_a_damaged_file_of_features_is_computed_again(plan: Experiment, tmp_path: Path) -> None:
    dataset, run = load_dataset(plan), RunFolder(tmp_path)
    with sharing_features(run):
        training = Training(plan, fold_split(plan, dataset, 0), run.trial(0), HERE)
        expected = training.pooled(training.split.train)
        (file,) = tmp_path.glob(".features/*.npy")
        file.write_bytes(file.read_bytes()[:-8])
        frozen_features._features.clear()
        assert torch.equal(training.pooled(training.split.train), expected)


def test_another_trunk_has_features_of_its_own(plan: Experiment, tmp_path: Path) -> None:
    dataset, run = load_dataset(plan), RunFolder(tmp_path)
    other = override(plan, "other", {"backbone.weights": "none", "seed": plan.seed + 1})
    with sharing_features(run):
        for each in (plan, other):
            training = Training(each, fold_split(each, dataset, 0), run.trial(0), HERE)
            training.pooled(training.split.train)
        assert len(list(tmp_path.glob(".features/*.npy"))) == 2


def test_weights_that_were_replaced_have_features_of_their_own(
    plan: Experiment, tmp_path: Path
) -> None:
    """The path is the same: in one process, and in the scores of a finished run."""
    weights, dataset, pooled = tmp_path / "w.pt", load_dataset(plan), []
    same = override(plan, "same", {"backbone.weights": str(weights), "budget.epochs": 1})
    with sharing_features(RunFolder(tmp_path)):
        for seed in range(2):
            torch.manual_seed(seed)
            trunk = backbones.build(plan.backbone.name, "none").network
            torch.save(trunk.state_dict(), weights)
            run = RunFolder(tmp_path / f"{seed}")
            run_training(same, run, lambda epoch: None, HERE)
            training = Training(same, fold_split(same, dataset, 0), RunFolder(tmp_path / "x"), HERE)
            pooled.append(training.pooled(training.split.train))
    assert not torch.allclose(pooled[0], pooled[1])
    frozen_features._features.clear()
    for seed in range(2):
        run = RunFolder(tmp_path / f"{seed}")
        assert evaluate(same, run, HERE).metrics == read_scores(run.scores).metrics


def test_features_that_a_killed_session_left_are_used_and_removed(
    plan: Experiment, tmp_path: Path
) -> None:
    run, left = RunFolder(tmp_path), tmp_path / ".features" / "left.npy"
    left.parent.mkdir()
    left.touch()
    with sharing_features(run):
        assert left.exists()
        with sharing_features(run.trial(0)):
            pass
        assert left.exists()
    assert not left.parent.exists()


def test_the_deepest_training_of_a_benchmark_shares_features(
    plan: Experiment, tmp_path: Path
) -> None:
    dataset, run = load_dataset(plan), RunFolder(tmp_path)
    cell = run.cell("demo", "one")
    trial = RunFolder(cell / "search").trial(0).fold(0)
    member = RunFolder(cell / "default" / "00").member(0)
    with sharing_features(run):
        for folder in (trial, member):
            training = Training(plan, fold_split(plan, dataset, 0), folder, HERE)
            frozen_features._features.clear()
            training.pooled(training.split.train)
        assert len(list(tmp_path.glob(".features/*.npy"))) == 1
        assert not list(cell.rglob(".features"))
