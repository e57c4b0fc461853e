"""Paths are given as text or as `Path`, one or several, and `~` is the home folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import dmlray
from dmlray.cli import main
from dmlray.errors import ConfigError, DmlrayError
from dmlray.inference.index import build_index
from dmlray.inference.model import Model

PHOTO = "images/class03/4.png"


@pytest.fixture
def home(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home folder with a run and images, beside an empty working folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name in ("a", "images"):
        (tmp_path / "home" / name).symlink_to(runs / name)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.fixture(scope="module")
def model(runs: Path) -> Model:
    return dmlray.load_model(runs / "a")


def test_the_home_folder_is_found_by_every_function(home: Path, model: Model) -> None:
    dmlray.export("~/a", "~/model", half=True, images="~/images")
    dmlray.embed("~/model", f"~/{PHOTO}", "~/vectors")
    build_index("~/vectors", "flat")
    ((hit,),) = dmlray.query("~/model", "~/vectors", f"~/{PHOTO}", k=1, index=True)
    assert hit.path == str(home / PHOTO)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("sources", "count"),
    [
        (lambda home: str(home / "images"), 96),
        (lambda home: home / "images", 96),
        (lambda home: [str(home / "images")], 96),
        (lambda home: (home / PHOTO, str(home / PHOTO)), 2),
        (lambda home: f"~/{PHOTO}", 1),
    ],
)
def test_images_are_text_or_paths_one_or_several(
    home: Path, model: Model, sources: Callable[[Path], Any], count: int
) -> None:
    assert dmlray.embed(model, sources(home), "vectors").count == count


@pytest.mark.parametrize("given", ["", "s3://bucket/x", "~nobody-here/x"])
def test_what_is_no_path_is_one_sentence(home: Path, model: Model, given: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: dmlray.embed(model, given, "vectors"),
        lambda: dmlray.embed(model, [PHOTO], given),
        lambda: dmlray.query(model, given, PHOTO),
        lambda: dmlray.export("~/a", given),
        lambda: dmlray.load_model(given),
        lambda: build_index(given, "flat"),
    ]
    for call in calls:
        with pytest.raises(ConfigError, match="Allowed: "):
            call()
    assert not list(Path().iterdir())


def test_a_device_is_of_this_process_whatever_cluster_there_is(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    words = ["embed", "~/a", f"~/{PHOTO}", "--out", "vectors", "--device", "cpu"]
    done = CliRunner().invoke(main, words)
    assert (done.exit_code, "1 of 8 dimensions" in done.output) == (0, True), done.output
    refused = CliRunner().invoke(main, [*words, "--address", "local"])
    assert (refused.exit_code, "without --address" in refused.output) == (2, True)


def test_a_single_array_is_an_image(model: Model) -> None:
    array = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    (row,) = model.embed(array)
    assert np.array_equal(model.embed([array]), [row])
    assert np.array_equal(model.embed(np.stack([array, array])), model.embed([array, array]))
    with pytest.raises(DmlrayError, match=r"array \(40, 50\) of uint8 is no image"):
        model.embed(array[..., 0])


def test_an_array_of_paths_is_a_list(home: Path, model: Model) -> None:
    paths = [str(home / f"images/class03/{number}.png") for number in range(3)]
    assert np.array_equal(model.embed(np.array(paths)), model.embed(paths))
    assert dmlray.embed(model, np.array(paths), "vectors").count == 3
    assert dmlray.export("~/a", "model", half=True, images=np.array(paths)).images == 3
    with pytest.raises(DmlrayError, match="no images"):
        dmlray.export("~/a", "other", half=True, images=[])


def test_without_any_vector_there_is_nothing_to_search(home: Path, model: Model) -> None:
    Path("broken.png").write_bytes(b"torn")
    assert dmlray.embed(model, "broken.png", "none").failed == 1
    calls: list[Callable[[], Any]] = [
        lambda: dmlray.query(model, "none", f"~/{PHOTO}"), lambda: build_index("none", "flat")
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(ConfigError, match="none: holds no vector: none of 1 images could be"):
            call()
