"""The demo's last stage on a toy: icons of unseen classes are found, none by itself."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from dmlray.api.demo_queries import query_icons
from dmlray.learn.class_split import load_dataset
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.progress import SilentDisplay
from tests.toy_data import draw_images, toy_words

DEMO = Path("experiments/proxy_anchor_demo.yaml")


def test_queries_are_of_unseen_classes_and_not_among_what_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    images = draw_images(tmp_path / "images", classes=16, images=4)
    plan = read_experiment(DEMO, toy_words(images, 1)).experiment
    run, folder = RunFolder(tmp_path / "run"), RunFolder(tmp_path)
    run_training(plan, run, lambda epoch: None, Runtime(torch.device("cpu")), False)
    page, model = query_icons(run, folder, plan, SilentDisplay())

    vectors = pq.read_table(folder.path / "vectors" / "shards").to_pydict()
    classes = load_dataset(plan).classes
    assert set(vectors["label"]) == set(classes[8:])  # the first half was trained on
    assert len(vectors["path"]) == 8 * 4 - 6
    text = page.read_text()
    searched = {str(Path(path)) for path in vectors["path"]}
    queries = {str(path) for path in images.glob("*/*.png")} - searched
    unseen = {path for path in queries if Path(path).parent.name in classes[8:]}
    assert len({Path(path).parent for path in unseen}) == 6
    assert text.count("data:image/") == 6 * (1 + 8)
    assert model == folder.path / "model"

    before = {path: path.stat().st_mtime_ns for path in model.iterdir()}
    page.unlink()
    assert query_icons(run, folder, plan, SilentDisplay())[0].read_text() == text
    assert {path: path.stat().st_mtime_ns for path in model.iterdir()} == before
