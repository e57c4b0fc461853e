"""Commands of every kind up to the moment at which they would train, without Ray."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from dmlray.api import averages, ensembles, runs, searches
from dmlray.cluster.resources import Cluster
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.toy_data import draw_images, toy_words

EXPERIMENT = Path("experiments/proxy_anchor_demo.yaml").absolute()
SEARCH = Path("searches/proxy_anchor_demo.yaml").absolute()


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures, in an empty folder to stand in, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    return draw_images(tmp_path / "images", images=4)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of one machine with two cores, in which nothing may be started."""

    @contextmanager
    def session(address: str | None = None, log: object = None) -> Iterator[Cluster]:
        yield Cluster(2.0, 0.0, 1)

    for module in (averages, ensembles, runs, searches):
        monkeypatch.setattr(module, "session", session)
        monkeypatch.setattr(module, "fill_caches", lambda plan, display, cpus, gpus: None)


@pytest.fixture
def finished(images: Path) -> list[str]:
    """Two finished runs."""
    plan = read_experiment(EXPERIMENT, [*toy_words(images, 1), "backbone.pooling=avg"]).experiment
    run_training(plan, RunFolder(Path("one")), lambda epoch: None, Runtime(torch.device("cpu")))
    shutil.copytree("one", "other")
    return ["one", "other"]
