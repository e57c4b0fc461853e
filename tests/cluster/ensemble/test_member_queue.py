"""Members do not depend on the number of actors, and only missing ones are trained."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import read_ensemble
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import read_scores
from tests.cluster.commands import Command
from tests.toy_data import toy_words

pytestmark = pytest.mark.slow
SIZE = 4


def test_a_run_has_one_writer_and_ends_when_it_is_moved_away(
    tmp_path: Path, toy_images: Path, environment: dict[str, str]
) -> None:
    words = ["ensemble", "--method", "dreml", *toy_words(toy_images, 500), "method.meta_classes=3"]
    run = tmp_path / "run"
    first = Command([*words, "--out", "run"], tmp_path, environment)
    first.until(lambda: (run / "members/000/metrics.jsonl").exists())
    for second in (["ensemble", "--resume", "run"], ["train", "--resume", "run/members/000"]):
        status, output = Command(second, tmp_path, environment).finish()
        assert (status, "Traceback" in output) == (2, False), output
        assert f"run: is being trained by process {first.process.pid} on" in output
    run.rename(tmp_path / "moved")
    status, output = first.finish(seconds=60)
    assert (status, "Traceback" in output) == (1, False), output
    assert "run: the run folder is gone" in output.splitlines()[-1]
    assert not run.exists()
    assert (tmp_path / "moved" / "ensemble.yaml").exists()


def embeddings(run: Path, index: int) -> np.ndarray:
    return np.load(run / "members" / f"{index:03d}" / "embeddings.npy")


def test_members_survive_a_kill_and_do_not_depend_on_actors(
    tmp_path: Path,
    toy_images: Path,
    environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["ensemble", "--method", "dreml", *toy_words(toy_images, 3), "method.meta_classes=3"]
    words += ["--ensemble-size", str(SIZE)]
    run = tmp_path / "torn"
    torn = Command([*words, "--out", "torn"], tmp_path, environment)
    torn.until(lambda: (run / "members/000/scores.json").exists())
    torn.kill(signal.SIGKILL)
    torn.finish()
    finished = {path: path.stat().st_mtime_ns for path in run.glob("members/*/scores.json")}

    status, output = Command(["ensemble", "--resume", "torn"], tmp_path, environment).finish()
    assert status == 0, output
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    scores = read_scores(run / "scores.json")
    assert len(scores.curve) == SIZE
    assert scores.curve[-1] == scores.metrics

    monkeypatch.setenv("DMLRAY_CACHE", environment["DMLRAY_CACHE"])
    torch.set_num_threads(1)
    plan = read_ensemble(run / "ensemble.yaml")
    for index in (0, SIZE - 1):  # in this process, without Ray, in another order
        alone = RunFolder(tmp_path / "alone" / f"{SIZE - index}")
        run_training(plan.member(index), alone, lambda epoch: None, Runtime(torch.device("cpu")))
        np.testing.assert_array_equal(embeddings(run, index), np.load(alone.embeddings))

    (run / "members/002/embeddings.npy").write_bytes(b"damaged")
    (run / "members/003/scores.json").unlink()
    last = run / "members/003/checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    status, output = Command(["ensemble", "--resume", "torn"], tmp_path, environment).finish()
    assert status == 0, output
    assert "members/002: its results are damaged; computed again" in output
    assert "member 3: its checkpoint cannot be read; trained again from its start" in output
    assert read_scores(run / "scores.json") == scores

    status, output = Command(["evaluate", "torn"], tmp_path, environment).finish()
    assert status == 0, output
