"""Embeddings of a run as TensorBoard's projector reads them, without a training."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
from werkzeug.test import Client

from dmlray.errors import ConfigError, DataError
from dmlray.plans.resolve import read_experiment, write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting import projector
from dmlray.reporting.projector import write_projector
from dmlray.scores import Scores
from tests.reporting.test_run_report import scores
from tests.toy_data import draw_images, toy_words

HOSTILE = "<script>alert(1)<|script>\t\n"
CLASSES, IMAGES = 3, 3  # of each class
SCORES = scores(method="proxy_anchor", test_classes=CLASSES, test_images=CLASSES * IMAGES)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A finished run of nine test images, of which one class has a hostile name."""
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    images = draw_images(tmp_path / "images", classes=2 * CLASSES, images=IMAGES)
    (images / "class05").rename(images / f"class05{HOSTILE}")
    folder = RunFolder(tmp_path / "run")
    plan = read_experiment(Path("experiments/proxy_anchor_demo.yaml"), toy_words(images))
    folder.path.mkdir()
    write_experiment(folder.plan("experiment"), plan.experiment)
    rows = np.random.default_rng(0).normal(size=(CLASSES * IMAGES, 4))
    np.save(folder.embeddings, (rows / np.linalg.norm(rows, axis=1)[:, None]).astype(np.float32))
    files = sorted(path for path in images.rglob("*.png") if path.parent.name >= "class03")
    SCORES.write(folder.scores)
    lines = [f'"{p.relative_to(images).as_posix()}","{p.parent.name}"\n' for p in files]
    folder.items.write_text("path,label\n" + "".join(lines))
    return folder


def sprite(run: RunFolder) -> Image.Image:
    with Image.open(run.projector / "sprite.png") as image:
        return image.convert("RGB")


def test_tensorboard_reads_vectors_classes_and_pictures(run: RunFolder) -> None:
    assert write_projector(run, SCORES) == ""
    context = SimpleNamespace(
        logdir=str(run.path), multiplexer=None, data_provider=None, flags=None,
        assets_zip_provider=None,
    )  # fmt: skip
    apps = ProjectorPlugin(context).get_plugin_apps()
    client = Client(lambda environ, start: apps[environ["PATH_INFO"]](environ, start))
    (embedding,) = client.get("/info?run=.").json["embeddings"]
    assert embedding["tensorShape"] == [9, 4]
    assert embedding["sprite"]["singleImageDim"] == [64, 64]
    query = f"?run=.&name={embedding['tensorName']}".replace(" ", "%20")
    rows = np.frombuffer(client.get(f"/tensor{query}").data, np.float32).reshape(9, 4)
    assert np.allclose(rows, np.load(run.embeddings), atol=1e-5)
    head, *lines = client.get(f"/metadata{query}").text.splitlines()
    assert head == "class\tpath"
    assert len(lines) == 9
    assert lines[0] == "class03\tclass03/0.png"
    assert all(line.count("\t") == 1 for line in lines)
    assert lines[-1].startswith(r"class05<script>alert(1)<|script>\t\n" + "\t")
    assert client.get(f"/sprite_image{query}").status_code == 200


def test_pictures_stand_row_by_row_in_the_order_of_the_vectors(run: RunFolder) -> None:
    write_projector(run, SCORES)
    whole = sprite(run)
    assert whole.size == (3 * 64, 3 * 64)
    images = run.path.parent / "images"
    for number, name in (
        (0, "class03/0.png"),
        (5, "class04/2.png"),
        (7, f"class05{HOSTILE}/1.png"),
    ):
        left, top = number % 3 * 64, number // 3 * 64
        tile = whole.crop((left + 16, top + 16, left + 48, top + 48))  # images have 32 pixels
        with Image.open(images / name) as image:
            assert np.array_equal(np.asarray(tile), np.asarray(image))


def test_a_broken_picture_is_grey(run: RunFolder) -> None:
    (run.path.parent / "images/class03/1.png").write_bytes(b"torn")
    note = write_projector(run, SCORES)
    assert note == "1 pictures are not where they were: grey in the projector"
    assert sprite(run).getpixel((64 + 32, 32)) == (0x88, 0x88, 0x88)
    assert sprite(run).getpixel((32, 32)) != (0x88, 0x88, 0x88)


def test_without_its_images_a_run_has_vectors_and_classes(run: RunFolder) -> None:
    (run.path.parent / "images").rename(run.path.parent / "moved")
    assert write_projector(run, SCORES).startswith("no pictures in the projector: ")
    assert "sprite" not in run.projector_config.read_text()
    assert len((run.projector / "vectors.tsv").read_text().splitlines()) == 9


def test_too_many_images_for_one_picture_leave_it_out(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projector, "_LARGEST_SPRITE", 3 * 8 - 1)  # three in a row, of 8 pixels
    assert "9 images are too many" in write_projector(run, SCORES)
    monkeypatch.setattr(projector, "_LARGEST_SPRITE", 3 * 8)
    assert write_projector(run, SCORES) == ""
    assert sprite(run).size == (24, 24)


def test_damaged_or_missing_files_are_one_sentence(run: RunFolder) -> None:
    without = Scores(**{**vars(SCORES), "test_classes": 0})
    with pytest.raises(ConfigError, match="has no test images"):
        write_projector(run, without)
    np.save(run.embeddings, np.ones((8, 4), np.float32) / 2)
    with pytest.raises(DataError, match=r"embeddings\.npy: "):
        write_projector(run, SCORES)
    assert not run.projector_config.exists()
