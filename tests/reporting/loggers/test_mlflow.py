"""The file store, read by MLflow itself."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.loggers import open_logger


@pytest.fixture(scope="module", autouse=True)
def package() -> Any:
    """Imported here, in one process of the tests: it takes seconds."""
    return pytest.importorskip("mlflow")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = tmp_path / "a run"
    folder.mkdir()
    return RunFolder(folder, root=folder)


def log(folder: RunFolder, steps: int, fails: bool = False) -> None:
    """A session that logs all steps from the first, as a resumed one does."""
    with closing(open_logger(folder, ["mlflow"])) as logger:
        for step in range(1, steps + 1):
            logger.scalars(step, {"train/loss": 1 / step, "validation/fold0/map_at_r": step / 10})
            if step == 1:
                logger.hparams({"optimizer.lr": 0.1, "data.root": "/a\udcff\n", "x": None}, {})
        if fails:
            raise RuntimeError


def client_of(folder: RunFolder) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=(folder.path / "mlruns").as_uri())


def runs_of(folder: RunFolder) -> list[Any]:
    client = client_of(folder)
    experiment = client.get_experiment_by_name(folder.path.name)
    return list(client.search_runs([experiment.experiment_id]))


def test_a_resumed_run_continues_its_run_and_has_each_step_once(run: RunFolder) -> None:
    with pytest.raises(RuntimeError):
        log(run, 2, fails=True)
    (found,) = runs_of(run)
    assert found.info.status == "FAILED"
    log(run, 4)
    (found,) = runs_of(run)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "a run"
    for name, first in (("train/loss", 1.0), ("validation/fold0/map_at_r", 0.1)):
        history = client_of(run).get_metric_history(found.info.run_id, name)
        assert sorted(metric.step for metric in history) == [1, 2, 3, 4]
        assert min(history, key=lambda metric: metric.step).value == pytest.approx(first)
    assert found.data.params == {
        "optimizer.lr": "0.1", "data.root": r"/a\udcff\n", "x": "None",
    }  # fmt: skip


def test_members_that_begin_together_are_runs_of_one_experiment(run: RunFolder) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda index: log(run.member(index), 1), range(4)))
    names = {f"a run/members/00{index}" for index in range(4)}
    assert {found.info.run_name for found in runs_of(run)} == names


def test_a_run_that_was_deleted_is_begun_anew(run: RunFolder) -> None:
    log(run, 1)
    (old,) = runs_of(run)
    client_of(run).delete_run(old.info.run_id)
    log(run, 1)
    (new,) = runs_of(run)
    assert new.info.run_id != old.info.run_id
    assert "train/loss" in new.data.metrics


def test_a_picture_is_an_artifact(run: RunFolder) -> None:
    with closing(open_logger(run, ["mlflow"])) as logger:
        logger.image("test/curve", np.zeros((4, 6, 3), np.uint8))
    (found,) = runs_of(run)
    (artifact,) = client_of(run).list_artifacts(found.info.run_id, "test")
    assert artifact.path == "test/curve.png"
