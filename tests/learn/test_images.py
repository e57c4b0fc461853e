"""Unusual images are reported in every score, and before training."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dmlray.errors import DataError
from dmlray.learn.class_split import load_dataset
from dmlray.learn.cross_validation import lockstep
from dmlray.learn.loop import Epoch
from dmlray.learn.preflight import preflight
from dmlray.learn.run import evaluate, run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.finished_runs import members_of
from dmlray.results.finished_runs import test_task as task_of
from dmlray.scores import Scores
from tests.toy_data import draw_images, toy_words

RUNTIME = Runtime(torch.device("cpu"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))


def plan_of(photos: Path, *words: str) -> Experiment:
    settings = [*toy_words(photos, 1), "protocol.folds=2", *words]
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), settings).experiment


def train(plan: Experiment, folder: RunFolder) -> Scores:
    def report(epoch: Epoch) -> None:
        pass

    return run_training(plan, folder, report, RUNTIME)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A copy of the toy images, for tests that change them."""
    return draw_images(tmp_path / "photos")


def with_broken(photos: Path, *words: str) -> Experiment:
    for name in ("class00/0.png", "class11/3.png"):
        (photos / name).write_bytes(b"<html>not found</html>")  # the same on both sides
    return plan_of(photos, *words)


@pytest.mark.parametrize("selection", ["last", "validation", "best_on_test"])
def test_broken_images_are_left_out_and_every_score_has_a_remark(
    photos: Path, tmp_path: Path, selection: str
) -> None:
    plan = with_broken(photos, "data.skip_broken=true", f"protocol.selection={selection}")
    assert preflight(plan).fingerprint == load_dataset(plan).fingerprint
    folder = RunFolder(tmp_path / "run")
    scores = train(plan, folder)
    assert scores.remarks == ["2 of 96 images left out as broken: class00/0.png, class11/3.png"]
    assert (scores.test_images, len(np.load(folder.embeddings))) == (47, 47)
    assert evaluate(plan, folder, RUNTIME) == scores
    assert task_of(members_of(folder.path)).query_count == 47
    for epoch in lockstep(plan, RunFolder(tmp_path / "folds"), RUNTIME):
        assert 0 <= epoch.metrics["map_at_r"] <= 1


def test_broken_images_are_listed_unless_they_may_be_left_out(photos: Path) -> None:
    plan = with_broken(photos)
    (photos / "class11/3.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 96 images cannot be read") as raised:
        preflight(plan)
    assert "class00/0.png" in str(raised.value)
    assert "class11/3.png" in str(raised.value)
    assert "data.skip_broken=true" in str(raised.value)


def test_images_scaled_by_their_own_range_have_a_remark(photos: Path, tmp_path: Path) -> None:
    deep = np.asarray(Image.open(photos / "class00" / "0.png").convert("L"), np.float32)
    Image.fromarray(deep).save(photos / "class00" / "0.png", "tiff")
    plan = plan_of(photos, "protocol.selection=last")
    (remark,) = train(plan, RunFolder(tmp_path / "run")).remarks
    assert remark.startswith("1 of 96 images have float or 32-bit values")


def test_the_limit_of_pixels_is_that_of_the_plan(photos: Path) -> None:
    plan = plan_of(photos, "data.max_megapixels=0.001")
    with pytest.raises(DataError, match=r"has more than 1,000 pixels \(32 x 32\)"):
        preflight(plan)


def test_runs_of_versions_whose_fingerprint_was_of_sizes_can_be_merged(
    photos: Path, tmp_path: Path
) -> None:
    plan, folder = plan_of(photos, "protocol.selection=last"), RunFolder(tmp_path / "run")
    scores = train(plan, folder)
    dataset = load_dataset(plan)
    lines = (
        f"{file}\0{dataset.classes[label]}\0{(dataset.root / file).stat().st_size}\n"
        for file, label in zip(dataset.files, dataset.labels, strict=True)
    )
    old = hashlib.sha256("".join(lines).encode()).hexdigest()[:16]
    replace(scores, dataset_fingerprint=old).write(folder.scores)
    assert task_of(members_of(folder.path)).query_count == scores.test_images
    replace(scores, dataset_fingerprint="another").write(folder.scores)
    with pytest.raises(DataError, match="but the images there are now"):
        task_of(members_of(folder.path))
