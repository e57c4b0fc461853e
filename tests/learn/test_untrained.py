"""Zero epochs score the backbone as it is; all classes may train, which leaves none to score."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.errors import ConfigError, DataError, DmlrayError
from dmlray.inference.export import export
from dmlray.inference.load import load_model
from dmlray.learn import metrics_log
from dmlray.learn.loop import Epoch
from dmlray.learn.preflight import preflight
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import Ensemble, repeats
from dmlray.plans.experiment import Experiment
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from dmlray.reporting.training_report import write_report
from dmlray.results import merge_runs
from dmlray.results.comparison import compare_runs
from dmlray.scores import Scores, protocol_line, read_scores
from tests.toy_data import draw_images, toy_words

EVERY = {"data.split": "all", "protocol.selection": "validation"}
RUNTIME = Runtime(torch.device("cpu"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    images = draw_images(tmp_path_factory.mktemp("untrained") / "images")
    words = [*toy_words(images, 1), "protocol.folds=2", "protocol.nmi=true", "seed=3"]
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def train(plan: Experiment, folder: RunFolder, epochs: list[Epoch] | None = None) -> Scores:
    return run_training(plan, folder, ([] if epochs is None else epochs).append, RUNTIME)


@pytest.mark.parametrize("selection", ["validation", "last", "best_on_test"])
@pytest.mark.parametrize("frozen", [False, True])
def test_zero_epochs_score_what_a_training_begins_with(
    plan: Experiment, tmp_path: Path, selection: str, frozen: bool
) -> None:
    plan = override(plan, "t", {"protocol.selection": selection, "backbone.frozen": frozen})
    trained = train(plan, RunFolder(tmp_path / "trained"))
    epochs: list[Epoch] = []
    nothing, folder = override(plan, "t", {"budget.epochs": 0}), RunFolder(tmp_path / "zero")
    preflight(nothing)
    scores = train(nothing, folder, epochs)
    assert not epochs
    assert scores.metrics.items() >= trained.zero_shot.items()
    assert (scores.method, scores.selection, scores.zero_shot) == ("zero-shot", "none", {})
    assert "nothing trained" in protocol_line(scores)
    assert scores.metrics.keys() - trained.zero_shot.keys() == {"nmi"}
    folder.scores.unlink()
    assert train(nothing, folder) == scores == evaluate(nothing, folder, RUNTIME)


def test_the_model_of_zero_epochs_is_the_pooled_backbone(plan: Experiment, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "zero")
    scores = train(override(plan, "t", {"budget.epochs": 0}), folder)
    model = load_model(folder.path)
    (branch,) = model.network.branches
    assert plan.data.root is not None
    test = [path for path in sorted(plan.data.root.rglob("*.png")) if path.parent.name > "class05"]
    maps: list[torch.Tensor] = []
    branch.trunk.network.register_forward_hook(lambda m, i, out: maps.append(out))  # type: ignore[union-attr]
    vectors = model.embed(test)
    pooled = torch.cat(maps).mean((2, 3)).numpy()
    expected = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    np.testing.assert_allclose(vectors, np.load(folder.embeddings), atol=1e-6)
    assert vectors.shape == (48, scores.embedding_size)
    cosines = vectors @ vectors.T - 2 * np.eye(48)
    hits = (cosines.argmax(1) // 8) == (np.arange(48) // 8)
    assert scores.metrics["recall_at_1"] == pytest.approx(hits.mean())


def test_zero_shot_runs_merge_and_compare(plan: Experiment, tmp_path: Path) -> None:
    nothing = override(plan, "t", {"budget.epochs": 0})
    train(nothing, RunFolder(tmp_path / "one"))
    train(override(nothing, "t", {"backbone.pooling": "max"}), RunFolder(tmp_path / "other"))
    runs = (tmp_path / "one", tmp_path / "other")
    one = read_scores(runs[0] / "scores.json")
    for number, how in enumerate((Merge(runs, pca=4), Merge(runs))):
        folder = RunFolder(tmp_path / f"merged{number}")
        merged = merge_runs.merge(how, folder, RUNTIME, lambda title: lambda done, total: None)
        assert (merged.selection, merged.method) == ("none", "zero-shot")
        assert merged.embedding_size == (4 if how.pca else 2 * one.embedding_size)
    (group,) = compare_runs(runs, None, True, lambda done, total: None).groups
    assert group.pairs[0].difference is not None


def test_nothing_that_needs_training_takes_zero_epochs(plan: Experiment) -> None:
    nothing = override(plan, "t", {"budget.epochs": 0})
    for refused in (
        lambda: repeats(nothing, 2),
        lambda: Ensemble(plan, 2, "settings", (nothing,)),
        lambda: read_search("proxy_anchor_demo", {"budget.epochs": 0}),
        lambda: read_search(
            "proxy_anchor_demo", {"space": {"budget.epochs": {"low": 0, "high": 4, "int": True}}}
        ),
    ):
        with pytest.raises(ConfigError, match=r"budget\.epochs.* 0 trains no .*at least 1"):
            refused()


@pytest.fixture(scope="module")
def deployed(
    plan: Experiment, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Experiment, RunFolder]:
    """A training on all classes, without a fold."""
    root = tmp_path_factory.mktemp("deployed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        every = override(plan, "t", {"data.split": "all", "protocol.selection": "last"})
        preflight(every)
        train(every, RunFolder(root / "run"))
    return every, RunFolder(root / "run")


def test_scores_of_a_training_on_all_classes_say_that_none_is_left(
    deployed: tuple[Experiment, RunFolder],
) -> None:
    every, folder = deployed
    scores = read_scores(folder.scores)
    assert (scores.test_classes, scores.test_images, scores.metrics) == (0, 0, {})
    assert scores.zero_shot == {}
    assert "no test classes, as all classes train" in protocol_line(scores)
    assert not folder.embeddings.exists()
    assert evaluate(every, folder, RUNTIME) == scores == train(every, folder)
    learner = torch.load(folder.last_checkpoint, weights_only=True)["learner"]
    (proxies,) = (tensor for name, tensor in learner.items() if "prox" in name)
    assert len(proxies) == 12


def test_all_classes_may_leave_a_fold_to_choose_the_epoch(plan: Experiment, tmp_path: Path) -> None:
    every = override(plan, "t", {**EVERY, "budget.epochs": 2})
    preflight(every)
    folder = RunFolder(tmp_path / "run")
    scores = train(every, folder)
    assert scores.selection == "validation"
    assert "fold 0 of 2" in scores.split
    assert all("map_at_r" in line for line in metrics_log.read(folder.metrics))


def test_a_training_on_all_classes_is_exported_with_a_word_on_it(
    deployed: tuple[Experiment, RunFolder], tmp_path: Path
) -> None:
    every, folder = deployed
    made = export(folder.path, tmp_path / "model", half=True)
    assert made.images == 32  # training images, as there are no others
    card = (tmp_path / "model" / "README.md").read_text()
    assert "no test classes, as all classes train" in card
    assert "never seen" not in card
    assert every.data.root is not None
    images = sorted(every.data.root.rglob("*.png"))[:2]
    exported, trained = load_model(tmp_path / "model"), load_model(folder.path)
    np.testing.assert_allclose(exported.embed(images), trained.embed(images), atol=1e-2)


def test_a_report_without_test_classes_says_so(deployed: tuple[Experiment, RunFolder]) -> None:
    write_report(deployed[1])
    page = deployed[1].report.read_text()
    assert "There are no test classes" in page
    assert "Loss" in page


def test_what_needs_test_classes_refuses_all_in_one_sentence(
    plan: Experiment, deployed: tuple[Experiment, RunFolder]
) -> None:
    every, folder = deployed

    def compare() -> object:
        return compare_runs([folder.path], None, False, lambda done, total: None)

    for refused, problem in (
        (compare, "no test classes"),
        (lambda: merge_runs.check(Merge((folder.path,), pca=2)), "no test classes"),
        (lambda: repeats(every, 2), "data.split: all leaves no test classes"),
        (lambda: override(plan, "t", {"data.split": "all", "protocol.selection": "best_on_test"}),
         "needs test classes"),
        (lambda: read_search("proxy_anchor_demo", {"data.split": "all", "repeats": 2}),
         "repeats: data.split all leaves no test classes"),
    ):  # fmt: skip
        with pytest.raises(DmlrayError, match=problem) as failure:
            refused()
        assert "Allowed: " in str(failure.value)


def test_one_class_is_not_enough_to_train_on(plan: Experiment, tmp_path: Path) -> None:
    root = draw_images(tmp_path / "one", classes=2)
    folder = root / "class01"
    for image in folder.iterdir():
        image.unlink()
    with pytest.raises(DataError, match="at least 2"):
        preflight(override(plan, "t", {"data.split": "all", "data.root": str(root)}))
