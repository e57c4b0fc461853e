"""An interrupted cross-validation resumes and trains nothing twice."""

import signal
from pathlib import Path

import pytest

from dmlray.scores import read_scores
from tests.cluster.commands import Command
from tests.toy_data import toy_words

pytestmark = pytest.mark.slow
FOLDS = 3


def test_folds_survive_an_interruption_and_none_is_trained_twice(
    tmp_path: Path, toy_images: Path, environment: dict[str, str]
) -> None:
    run = tmp_path / "torn"
    words = ["cv", "experiments/proxy_anchor_demo.yaml", *toy_words(toy_images, 4)]
    words += [f"protocol.folds={FOLDS}", "protocol.split=mlrc"]
    torn = Command([*words, "--out", "torn"], tmp_path, environment)
    torn.until(lambda: (run / "members/000/scores.json").exists())
    torn.kill(signal.SIGTERM)
    status, output = torn.finish(seconds=60)
    assert (status, "Traceback" in output) == (143, False), output
    assert output.endswith("Resume with: dmlray cv --resume torn\n"), output
    finished = {path: path.stat().st_mtime_ns for path in run.glob("members/*/scores.json")}
    assert not (run / "scores.json").exists()

    status, output = Command(["cv", "--resume", "torn"], tmp_path, environment).finish()
    assert status == 0, output
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    scores = read_scores(run / "scores.json")
    assert (scores.n, scores.split) == (FOLDS, f"{FOLDS} mlrc folds")
    assert "concatenated" in output
    assert "fold 2, on the training classes it held out" in output
