"""Commands of every kind, what stops them, and another process that holds a run."""

import errno
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from dmlray.api import runs
from dmlray.api.run_lock import RunLock
from dmlray.api.run_setup import Run, claim
from dmlray.cli import main
from dmlray.errors import Call
from dmlray.plans.ensemble import Ensemble, cross_validation, repeats
from dmlray.plans.resolve import read_experiment, write_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.plans.search import read_search
from tests.toy_data import toy_words

EXPERIMENT = Path("experiments/proxy_anchor_demo.yaml").absolute()
SEARCH = Path("searches/proxy_anchor_demo.yaml").absolute()
FORK = multiprocessing.get_context("fork")
TRAINS = ("train", "tune", "cv", "repeat", "ensemble")
ALL = (*TRAINS, "merge", "demo")


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


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert "Traceback" not in result.output
    return result


def new_run(folder: RunFolder) -> AbstractContextManager[Run[None]]:
    return claim(folder, Call("train", {"resume": str(folder)}), resumed=False)


def nothing_trains(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """What follows the opening of a run fails with `error`."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("dmlray.api.runs.cluster_train.train", fail)
    monkeypatch.setattr("dmlray.api.searches.searching.search", fail)
    monkeypatch.setattr("dmlray.api.averages.members.train_members", fail)
    monkeypatch.setattr(runs, "merge_members", fail)
    monkeypatch.setattr(runs, "score_members", fail)
    monkeypatch.setattr("dmlray.results.merge_runs.merge", fail)


def full_disk(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_replace(name: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The disk refuses to take the file `name`, whatever it is written by."""
    replace = os.replace

    def refuse(source: Any, target: Any, **keywords: Any) -> None:
        if Path(target).name == name:
            raise OSError(number, os.strerror(number))
        replace(source, target, **keywords)

    monkeypatch.setattr(os, "replace", refuse)


@contextmanager
def another_process(folder: RunFolder) -> Iterator[Any]:
    """It holds the lock of `folder`."""
    ready = FORK.Event()
    process = FORK.Process(target=_hold, args=(folder, ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def _hold(folder: RunFolder, ready: Any) -> None:
    folder.path.mkdir(parents=True, exist_ok=True)
    RunLock(folder).take()
    ready.set()
    time.sleep(600)
