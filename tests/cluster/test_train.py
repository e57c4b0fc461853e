"""A training whose worker or driver is killed gives the same scores as an uninterrupted one."""

import os
import signal
from pathlib import Path

import pytest
import torch

from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.scores import read_scores
from tests.cluster.commands import Command, in_this_process, lines
from tests.epoch_logs import epochs_of
from tests.toy_data import toy_words

pytestmark = pytest.mark.slow
FILE = "experiments/proxy_anchor_demo.yaml"


def worker_of(environment: dict[str, str]) -> int:
    """Find the process that trains by its name and its inherited variables."""
    marker = f"RAY_TMPDIR={environment['RAY_TMPDIR']}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if b"RayTrainWorker" in name and marker in variables:
            return int(process.name)
    raise AssertionError("no training worker found")


def test_a_killed_worker_and_a_killed_driver_change_no_score(
    tmp_path: Path, toy_images: Path, environment: dict[str, str]
) -> None:
    words = ["train", FILE, *toy_words(toy_images, 20)]
    plan = read_experiment(Path(FILE), words[2:]).experiment
    calm = RunFolder(tmp_path / "calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DMLRAY_CACHE", environment["DMLRAY_CACHE"])
        torch.set_num_threads(os.cpu_count() or 1)  # as many as Ray gives to a training
        run_training(plan, calm, lambda epoch: None, Runtime(torch.device("cpu")))
        torch.set_num_threads(1)

    metrics = tmp_path / "torn" / "metrics.jsonl"
    torn = Command([*words, "--out", "torn"], tmp_path, environment)
    torn.until(lambda: lines(metrics) >= 2)
    os.kill(worker_of(environment), signal.SIGKILL)
    torn.until(lambda: lines(metrics) >= 4)
    torn.kill(signal.SIGTERM)
    status, output = torn.finish()
    assert (status, "Traceback" in output) == (143, False), output
    assert output.endswith("Resume with: dmlray train --resume torn\n"), output

    status, output = in_this_process(["train", "--resume", "torn"], tmp_path, environment)
    assert status == 0, output
    assert "zero-shot" in output
    assert read_scores(tmp_path / "torn" / "scores.json") == read_scores(calm.scores)
    assert epochs_of(metrics) == epochs_of(calm.metrics)
