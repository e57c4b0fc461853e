"""A model gives the vectors that were scored, without the training images."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import dmlray
from dmlray.errors import DmlrayError
from dmlray.inference.model import bare_backbone


def rows_of(run: Path) -> list[dict[str, str]]:
    with open(run / "items.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def files_of(runs: Path, run: str) -> list[Path]:
    return [runs / "images" / row["path"] for row in rows_of(runs / run)]


@pytest.mark.parametrize("run", ["a", "b", "three/members/001"])
def test_a_training_embeds_its_test_images_as_they_were_scored(runs: Path, run: str) -> None:
    """Bit for bit: one path of code, the same batch and the same device."""
    expected = np.load(runs / run / "embeddings.npy")
    found = dmlray.load_model(runs / run).embed(files_of(runs, run), device="cpu")
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)
    labels = [row["label"] for row in rows_of(runs / run)]
    assert labels == [Path(row["path"]).parent.name for row in rows_of(runs / run)]


def test_an_ensemble_lays_its_members_side_by_side(runs: Path) -> None:
    members = [np.load(runs / "three" / "members" / f"00{n}" / "embeddings.npy") for n in range(3)]
    expected = np.concatenate(members, 1) / np.sqrt(3)
    found = dmlray.load_model(runs / "three").embed(files_of(runs, "a"), device="cpu")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_projected_merge_embeds_as_it_was_scored(runs: Path) -> None:
    model = dmlray.load_model(runs / "pca")
    assert len(model.config.branches) == 5
    assert model.inputs == ["images", "images_2"]
    found = model.embed(files_of(runs, "a"), device="cpu")
    np.testing.assert_allclose(found, np.load(runs / "pca" / "embeddings.npy"), atol=1e-5)
    assert rows_of(runs / "pca") == rows_of(runs / "a")


def test_a_greedy_merge_has_the_members_that_it_chose(runs: Path) -> None:
    model = dmlray.load_model(runs / "greedy")
    assert model.scores is not None
    said = model.scores.remarks[0].partition("epochs): ")[2].split(", ")
    parts = [np.load(Path(run) / "embeddings.npy") for run in said]
    expected = np.concatenate(parts, 1) / np.sqrt(len(parts))
    found = model.embed(files_of(runs, "a"), device="cpu")
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_paths_opened_images_and_arrays_are_one(runs: Path) -> None:
    model, files = dmlray.load_model(runs / "a"), files_of(runs, "a")[:3]
    opened = [Image.open(file) for file in files]
    arrays = np.stack([np.asarray(image.convert("RGB")) for image in opened])
    expected = model.embed(files)
    assert np.array_equal(model.embed(opened), expected)
    assert np.array_equal(model.embed(arrays), expected)
    assert np.array_equal(model.embed(str(files[0])), model.embed(files[:1]))
    done: list[tuple[int, int]] = []
    model.embed(files, batch_size=2, progress=lambda *counts: done.append(counts))
    assert done == [(2, 3), (3, 3)]
    assert model.embed([]).shape == (0, model.dimension)


def test_preprocess_gives_what_the_network_takes(runs: Path) -> None:
    model, file = dmlray.load_model(runs / "pca"), files_of(runs, "a")[0]
    crops = model.preprocess(file)
    assert {name: tuple(crop.shape) for name, crop in crops.items()} == {
        "images": (3, 30, 30),
        "images_2": (3, 30, 30),
    }
    with torch.inference_mode():
        row = model.network(*(crop[None] for crop in crops.values()))
    assert np.array_equal(row.numpy(), model.embed([file], device="cpu"))


def test_a_bare_backbone_needs_no_training(runs: Path) -> None:
    model = bare_backbone("timm/test_resnet", "none")
    rows = model.embed(files_of(runs, "a")[:2])
    assert rows.shape == (2, model.dimension)
    assert model.scores is None
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)


def test_loading_draws_nothing_of_the_callers_random_numbers(runs: Path) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    dmlray.load_model(runs / "a")
    assert torch.equal(torch.rand(3), expected)


def test_a_run_leaves_its_images_ray_and_optuna_behind(runs: Path, tmp_path: Path) -> None:
    """On a machine that has neither: a copy of the run, and imports that fail."""
    shutil.copytree(runs / "a", tmp_path / "run")
    image = tmp_path / "one.png"
    shutil.copy(files_of(runs, "a")[0], image)
    program = (
        "import sys\n"
        "for name in ('ray', 'optuna', 'faiss'):\n"
        "    sys.modules[name] = None\n"
        "import dmlray\n"
        f"print(dmlray.load_model({str(tmp_path / 'run')!r}).embed([{str(image)!r}]).tolist())\n"
    )
    plan = tmp_path / "run" / "experiment.yaml"
    plan.write_text(plan.read_text().replace(str(runs / "images"), "/nowhere"))
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    np.testing.assert_allclose(
        np.array(eval(answer.stdout)), np.load(runs / "a" / "embeddings.npy")[:1], atol=1e-6
    )


def unfinished(runs: Path, copy: Path) -> str:
    (copy / "scores.json").unlink()
    return "is not finished"


def without_weights(runs: Path, copy: Path) -> str:
    shutil.rmtree(copy / "checkpoints")
    return r"best\.pt: no such checkpoint"


def torn_weights(runs: Path, copy: Path) -> str:
    file = copy / "checkpoints" / "best.pt"
    file.write_bytes(file.read_bytes()[:1000])
    return r"best\.pt: is not a checkpoint of dmlray or is damaged"


def weights_of_another(runs: Path, copy: Path) -> str:
    shutil.copy(runs / "b" / "checkpoints" / "best.pt", copy / "checkpoints" / "best.pt")
    return r"head\.head\.weight has shape"


def weights_of_another_seed(runs: Path, copy: Path) -> str:
    other = runs / "three" / "members" / "002" / "checkpoints" / "best.pt"
    shutil.copy(other, copy / "checkpoints" / "best.pt")
    return "is of another training: seed 2, .*, not seed 0"


@pytest.mark.parametrize(
    "damage",
    [unfinished, without_weights, torn_weights, weights_of_another, weights_of_another_seed],
)
def test_a_run_without_a_model_is_one_sentence(runs: Path, tmp_path: Path, damage: object) -> None:
    shutil.copytree(runs / "a", tmp_path / "run")
    expected = damage(runs, tmp_path / "run")  # type: ignore[operator]
    with pytest.raises(DmlrayError, match=expected) as caught:
        dmlray.load_model(tmp_path / "run")
    assert caught.value.exit_status == 2
    assert "\n" not in str(caught.value)


def test_what_is_no_model_and_no_image_is_one_sentence(runs: Path, tmp_path: Path) -> None:
    for path, said in ((tmp_path, "neither a run nor a model"), (tmp_path / "x", "no such folder")):
        with pytest.raises(DmlrayError, match=said):
            dmlray.load_model(path)
    model = dmlray.load_model(runs / "a")
    (tmp_path / "text.jpg").write_text("no image")
    wrong: tuple[tuple[Any, str], ...] = (
        (tmp_path / "text.jpg", "text.jpg: not a readable image"),
        (tmp_path / "none.jpg", "No such file"),
        (np.zeros((4, 4), np.uint8), r"array \(4, 4\) of uint8 is no image"),
        (np.zeros((4, 4, 3)), "of float64 is no image"),
        (3, "int is no image"),
    )
    for image, said in wrong:
        with pytest.raises(DmlrayError, match=said) as caught:
            model.embed([image])
        assert "\n" not in str(caught.value)


def test_a_merge_whose_member_was_trained_again_is_refused(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "pca", tmp_path / "pca")
    file = tmp_path / "pca" / "merged.safetensors"
    packed = file.read_bytes()
    scores = dmlray.load_model(runs / "a").scores
    assert scores is not None
    assert scores.embeddings_sha256 is not None
    known = scores.embeddings_sha256.encode()
    for changed, said in (
        (packed.replace(known, known[::-1]), "was trained again since"),
        (packed[:-9], "is damaged"),
        (b"", "is damaged"),
    ):
        file.write_bytes(changed)
        with pytest.raises(DmlrayError, match=said):
            dmlray.load_model(tmp_path / "pca")
    file.unlink()
    with pytest.raises(DmlrayError, match="resume the merge to make it"):
        dmlray.load_model(tmp_path / "pca")
