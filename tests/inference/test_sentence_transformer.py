"""An exported folder is a model of sentence-transformers that gives the same vectors."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dmlray
from dmlray.errors import DmlrayError
from dmlray.inference.export import export
from tests.inference.test_model import files_of


@pytest.fixture(scope="module", autouse=True)
def package() -> Any:
    """Imported here, in one process of the tests: it takes seconds."""
    return pytest.importorskip("sentence_transformers")


def opened(folder: Path, **options: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", **options)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("run", ["a", "three", "pca"])
def test_it_gives_the_vectors_of_the_model(runs: Path, tmp_path: Path, run: str) -> None:
    """`pca` cuts images in two ways, and has two inputs."""
    export(runs / run, tmp_path / "model")
    model = opened(tmp_path / "model", trust_remote_code=True)
    files = files_of(runs, "a")[:9]
    expected = dmlray.load_model(tmp_path / "model").embed(files, device="cpu")
    pictures = [Image.open(file) for file in files]
    arrays = [np.asarray(image) for image in pictures]
    for images in (pictures, [str(file) for file in files], arrays):
        found = model.encode(images, batch_size=32)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(model.encode(pictures[0]), expected[0], atol=1e-6)
    assert model.get_embedding_dimension() == expected.shape[1]
    assert float(model.similarity(expected[:1], expected[:1])) == pytest.approx(1, abs=1e-5)


def test_a_saved_one_is_the_same_model(runs: Path, tmp_path: Path, package: Any) -> None:
    from dmlray.inference.sentence_transformer import ImageEmbedder

    model = package.SentenceTransformer(modules=[ImageEmbedder.load(str(runs / "a"))], device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    theirs, ours = dmlray.load_model(tmp_path / "saved"), dmlray.load_model(runs / "a")
    assert theirs.fingerprint == ours.fingerprint
    again = opened(tmp_path / "saved", trust_remote_code=True)
    image = Image.open(files_of(runs, "a")[0])
    assert np.array_equal(again.encode(image), model.encode(image))


def test_no_code_of_the_folder_is_run(runs: Path, tmp_path: Path) -> None:
    """Not even with the argument that the package asks for, nor from where its class would lie."""
    folder = tmp_path / "model"
    export(runs / "a", folder)
    there = folder / "dmlray" / "inference"
    there.mkdir(parents=True)
    for file in (folder / "dmlray.py", there / "__init__.py", there / "sentence_transformer.py"):
        file.write_text("raise SystemExit('code of the folder was run')\n")
    opened(folder, trust_remote_code=True)
    assert str(folder) not in sys.path
    with pytest.raises(ValueError, match="trust_remote_code"):
        opened(folder)


def test_what_is_no_model_is_one_sentence(tmp_path: Path) -> None:
    from dmlray.inference.sentence_transformer import ImageEmbedder

    (tmp_path / "empty").mkdir()
    with pytest.raises(DmlrayError, match="is neither a run nor a model"):
        ImageEmbedder.load(str(tmp_path / "empty"))
