"""Any model teaches: its vectors of the training images, as evaluation cuts them."""

from pathlib import Path

import numpy as np
import pytest
import torch

import dmlray
from dmlray.api.teaching import load_teacher, teach
from dmlray.data.folds import train_subset
from dmlray.errors import DmlrayError
from dmlray.inference.export import export
from dmlray.inference.model import bare_backbone
from dmlray.inference.teacher import remark
from dmlray.learn.class_split import load_dataset
from dmlray.learn.run import run_training
from dmlray.learn.teacher import read_vectors
from dmlray.plans.experiment import Experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import SilentDisplay
from tests.inference.conftest import HERE, experiment


def student(runs: Path, teacher: object, *words: str) -> Experiment:
    named = [] if teacher is None else [f"method.teacher={teacher}"]
    return experiment("distil", runs / "images", "method.dim=8", *named, *words)


@pytest.mark.parametrize("run", ["three", "pca", "model"])
def test_the_vectors_are_those_of_the_model(runs: Path, tmp_path: Path, run: str) -> None:
    """Of the training images alone, and with the cosines that the model gives them."""
    if run == "model":
        export(runs / "b", tmp_path / "model")
    plan = student(runs, tmp_path / "model" if run == "model" else runs / run)
    dataset, folder = load_dataset(plan), RunFolder(tmp_path)
    model = load_teacher([plan], folder)
    teach(model, dataset, folder, SilentDisplay())
    found = read_vectors(folder.teacher, dataset)
    files = [dataset.root / dataset.files[row] for row in train_subset(dataset).rows]
    assert len(found.rows) == len(files) == 48
    expected = model.embed(files, device="cpu")
    np.testing.assert_allclose(found.rows @ found.rows.T, expected @ expected.T, atol=1e-5)
    assert model.fingerprint in found.remark
    assert "trained on these images" in found.remark
    assert load_teacher([plan], folder) is None, "the vectors are there"


def test_a_student_leaves_its_run_without_its_teacher(runs: Path, tmp_path: Path) -> None:
    plan = student(runs, runs / "three")
    folder = RunFolder(tmp_path / "run")
    folder.make()
    teach(load_teacher([plan]), load_dataset(plan), folder, SilentDisplay())
    scores = run_training(plan, folder, lambda epoch: None, HERE)
    assert any("teacher" in note and "3 networks" in note for note in scores.remarks)
    folder.teacher.unlink()
    export(folder.path, tmp_path / "model")
    model = dmlray.load_model(tmp_path / "model")
    assert (len(model.config.branches), model.dimension) == (1, 8)
    text = "".join((tmp_path / "model" / name).read_text() for name in ("config.json", "README.md"))
    assert str(runs) not in text
    assert model.config.settings["method"]["teacher"] == "three"


def test_a_teacher_that_cannot_be_used_is_one_sentence(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for plans, complaint in (
        ([student(runs, None)], "method.teacher: is missing. Allowed: the folder of a finished"),
        ([student(runs, "/nowhere")], "/nowhere: no such folder"),
        ([student(runs, tmp_path / "empty")], "is neither a run nor a model"),
        ([student(runs, runs / "a"), student(runs, runs / "b")], "2 teachers in one run"),
    ):
        with pytest.raises(DmlrayError, match=complaint) as caught:
            load_teacher(plans)
        assert caught.value.exit_status == 2
        assert "\n" not in str(caught.value)
    assert load_teacher([experiment("dreml", runs / "images")]) is None


def test_the_remark_warns_of_what_a_teacher_may_have_seen(runs: Path) -> None:
    dataset = load_dataset(student(runs, runs / "a"))
    with torch.random.fork_rng():
        assert "not trained by dmlray" in remark(bare_backbone("timm/test_resnet", "none"), dataset)
    other = load_dataset(student(runs, runs / "a"))
    object.__setattr__(other, "files", (*other.files[1:], other.files[0]))
    other.__dict__.pop("_identity", None)
    assert "OTHER IMAGES, PERHAPS" in remark(dmlray.load_model(runs / "a"), other)
