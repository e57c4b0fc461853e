"""A training's thresholds are chosen on the classes that it held out, never on test classes."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.evaluation.comparisons import Comparisons
from dmlray.evaluation.task import RetrievalTask
from dmlray.evaluation.verification import verify
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import Scores, read_scores, why_no_threshold
from tests.toy_data import draw_images, toy_words

RUNTIME = Runtime(torch.device("cpu"))
HELD_OUT, TEST, IMAGES = 6, 12, 8


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    images = draw_images(tmp_path_factory.mktemp("toys") / "images", 2 * TEST, IMAGES)
    words = [*toy_words(images, 1), "protocol.folds=2", "protocol.selection=validation"]
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def train(plan: Experiment, folder: RunFolder) -> Scores:
    return run_training(plan, folder, lambda epoch: None, RUNTIME, with_zero_shot=False)


def rows_of(file: Path, classes: int) -> tuple[torch.Tensor, RetrievalTask]:
    rows = torch.from_numpy(np.load(file))
    return rows, RetrievalTask(torch.arange(classes).repeat_interleave(len(rows) // classes))


def test_thresholds_are_of_the_held_out_classes_and_checked_on_the_test_classes(
    plan: Experiment, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    scores = train(plan, folder)
    found = scores.verification
    assert (found.classes, found.images) == (HELD_OUT, HELD_OUT * IMAGES)
    assert (
        found.embeddings_sha256
        == sha256((tmp_path / "run/validation.npy").read_bytes()).hexdigest()
    )
    held_out, task = rows_of(folder.validation_embeddings, HELD_OUT)
    tested, others = rows_of(folder.embeddings, TEST)
    different = (held_out @ held_out.T)[task.labels[:, None] != task.labels]
    same = (tested @ tested.T)[(others.labels[:, None] == others.labels).fill_diagonal_(False)]
    assert found.negatives == len(different) == 1920
    assert "fmr_1e-2" in found.thresholds
    for threshold in found.thresholds.values():
        assert threshold.fmr == pytest.approx((different >= threshold.cosine).double().mean())
        missed = (same < threshold.cosine).double().mean()
        assert threshold.test_fnmr.value == pytest.approx(float(missed))
    assert found == verify(Comparisons([held_out], task), Comparisons([tested], others))
    assert scores.no_threshold == ""
    assert read_scores(folder.scores) == scores == evaluate(plan, folder, RUNTIME)


@pytest.mark.parametrize(
    ("selection", "reason"),
    [
        ("last", "every training class was trained on"),
        ("best_on_test", "a threshold is never chosen on test classes"),
    ],
)
def test_without_held_out_classes_there_is_a_reason_and_no_threshold(
    plan: Experiment, tmp_path: Path, selection: str, reason: str
) -> None:
    scores = train(override(plan, "test", {"protocol.selection": selection}), RunFolder(tmp_path))
    assert scores.verification is None
    assert reason in scores.no_threshold
    assert why_no_threshold(scores) == scores.no_threshold
    assert not (tmp_path / "validation.npy").exists()


def test_a_missing_file_is_made_again_and_older_scores_say_what_to_do(
    plan: Experiment, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    scores = train(plan, folder)
    content = folder.validation_embeddings.read_bytes()
    folder.validation_embeddings.unlink()
    assert train(plan, folder) == scores
    assert folder.validation_embeddings.read_bytes() == content
    document = json.loads(folder.scores.read_text())
    older = {
        name: value
        for name, value in document.items()
        if name not in ("verification", "no_threshold")
    }
    folder.scores.write_text(json.dumps(older))
    assert "delete its scores.json and resume it" in why_no_threshold(read_scores(folder.scores))
    folder.scores.unlink()
    assert train(plan, folder).verification == scores.verification
