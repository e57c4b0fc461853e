"""Members do not depend on the number of actors, and only missing ones are trained."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from dmlray.cli.commands import main
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import read_ensemble
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import read_scores
from tests.cluster.commands import Command, in_this_process
from tests.toy_data import toy_words

pytestmark = pytest.mark.slow
SIZE = 4


def test_a_run_has_one_writer_and_ends_when_it_is_moved_away(
    tmp_path: Path, toy_images: Path, environment: dict[str, str]
) -> None:
    words = ["ensemble", "--method", "dreml", *toy_words(toy_images, 500), "method.meta_classes=3"]
    words += ["--ensemble-size", "1"]
    run = tmp_path / "run"
    first = Command([*words, "--out", "run"], tmp_path, environment)
    first.until(lambda: (run / "members/000/metrics.jsonl").exists())
    for second in (["ensemble", "--resume", str(run)], ["train", "--resume", f"{run}/members/000"]):
        refused = CliRunner().invoke(main, second)
        assert refused.exit_code == 2, refused.output
        assert f"run: is being trained by process {first.process.pid} on" in refused.output
    run.rename(tmp_path / "moved")
    status, output = first.finish()
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
    members = [run / f"members/{index:03d}" for index in range(SIZE)]
    torn = Command([*words, "--out", "torn"], tmp_path, environment)
    torn.until(lambda: (members[1] / "scores.json").exists() and _is_trained(members[2]))
    torn.kill(signal.SIGKILL)
    torn.finish()
    (members[1] / "embeddings.npy").write_bytes(b"damaged")
    last = members[2] / "checkpoints/last.pt"
    last.write_bytes(last.read_bytes()[:-100])
    (members[2] / "scores.json").unlink(missing_ok=True)
    finished = (members[0] / "scores.json").stat().st_mtime_ns

    status, output = in_this_process(["ensemble", "--resume", "torn"], tmp_path, environment)
    assert status == 0, output
    assert "members/001: its results are damaged; computed again" in output
    assert "member 2: its checkpoint cannot be read; trained again from its start" in output
    assert (members[0] / "scores.json").stat().st_mtime_ns == finished
    scores = read_scores(run / "scores.json")
    assert len(scores.curve) == SIZE
    assert scores.curve[-1] == scores.metrics

    monkeypatch.setenv("DMLRAY_CACHE", environment["DMLRAY_CACHE"])
    torch.set_num_threads(1)
    plan = read_ensemble(run / "ensemble.yaml")
    for index in (2, 1):  # in this process, without Ray, in another order
        alone = RunFolder(tmp_path / "alone" / f"{SIZE - index}")
        run_training(plan.member(index), alone, lambda epoch: None, Runtime(torch.device("cpu")))
        np.testing.assert_array_equal(embeddings(run, index), np.load(alone.embeddings))

    evaluated = CliRunner().invoke(main, ["evaluate", str(run)])
    assert evaluated.exit_code == 0, evaluated.output


def _is_trained(member: Path) -> bool:
    return (member / "checkpoints/last.pt").exists()
