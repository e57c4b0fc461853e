"""Commands of every kind up to the moment at which they would train, without Ray."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmlray.api import averages, ensembles, runs
from dmlray.cluster.session import Cluster
from dmlray.plans.ensemble import Ensemble, cross_validation, repeats
from dmlray.plans.files import read_experiment, write_experiment
from dmlray.plans.folder import RunFolder
from dmlray.plans.search import read_search
from tests.toys import draw_images, toy_words

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
    def session(address: str | None = None) -> Iterator[Cluster]:
        yield Cluster(2.0, 0.0, 1)

    for module in (averages, ensembles, runs):
        monkeypatch.setattr(module, "session", session)
        monkeypatch.setattr(module, "fill_caches", lambda plan, display: None)


def words(kind: str, images: Path) -> list[str]:
    """A new run of this kind."""
    toy = [*toy_words(images, 1), "protocol.folds=3", "backbone.name=timm/test_resnet"]
    return {
        "train": ["train", str(EXPERIMENT), *toy],
        "tune": ["tune", str(SEARCH), *toy],
        "cv": ["cv", str(EXPERIMENT), *toy],
        "repeat": ["repeat", str(EXPERIMENT), *toy],
        "ensemble": ["ensemble", "--experiment", str(EXPERIMENT), "--vary", "seed", *toy],
        "merge": ["merge", "one", "other"],
        "demo": ["demo"],
    }[kind]


def write_plan(kind: str, folder: RunFolder, images: Path) -> None:
    """What a run of this kind is resumed from."""
    toy = [*toy_words(images, 1), "protocol.folds=3"]
    plan = read_experiment(EXPERIMENT, toy).experiment
    writers: dict[str, Callable[[], None]] = {
        "train": lambda: write_experiment(folder.plan("experiment"), plan),
        "tune": lambda: read_search(SEARCH, toy).write(folder.plan("search")),
        "cv": lambda: cross_validation(plan).write(folder.plan("cross_validation")),
        "repeat": lambda: repeats(plan, 2).write(folder.plan("repeat")),
        "ensemble": lambda: Ensemble(plan, 2, "seed").write(folder.plan("ensemble")),
    }
    writers[kind]()
