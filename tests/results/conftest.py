"""Finished toy runs to merge, and the merging of them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results.merge_runs import merge
from dmlray.scores import Scores
from tests.toy_data import draw_images, toy_words

HERE = Runtime(torch.device("cpu"))


def silent(title: str) -> Callable[[int, int], None]:
    return lambda done, total: None


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods with equal held-out classes, and three runs that differ in these or in images."""
    root = tmp_path_factory.mktemp("merging")
    images = draw_images(root / "images")
    other = draw_images(root / "other", classes=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", str(root / "cache"))
        held = ["protocol.selection=validation", "protocol.folds=3"]
        _train(root / "a", "proxy_anchor", [*toy_words(images, 1), *held, "method.dim=8"])
        _train(root / "b", "dreml", [*toy_words(images, 1), *held, "method.meta_classes=3"])
        one = [*held[:1], "protocol.folds=6"]
        _train(root / "one", "proxy_anchor", [*toy_words(images, 1), *one, "method.dim=8"])
        _train(root / "last", "dreml", [*toy_words(images, 1), "method.meta_classes=3"])
        _train(root / "other_images", "dreml", [*toy_words(other, 1), "method.meta_classes=3"])
    return root


def _train(folder: Path, method: str, words: list[str]) -> None:
    plan = read_experiment(Path(f"experiments/{method}_demo.yaml"), words).experiment
    run_training(plan, RunFolder(folder), lambda epoch: None, HERE, with_zero_shot=False)


@pytest.fixture
def merged(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Scores]:
    monkeypatch.setenv("DMLRAY_CACHE", str(runs / "cache"))

    def run(*names: str, folder: str = "out", **settings: object) -> Scores:
        plan = Merge(tuple(runs / name for name in names), **settings)  # type: ignore[arg-type]
        return merge(plan, RunFolder(tmp_path / folder), HERE, silent)

    return run
