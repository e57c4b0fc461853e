"""Real raylets with a token: new nodes are used, and lost ones cost no member."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from dmlray.learn import metrics_log
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.ensemble import read_ensemble
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.cluster.commands import Command, in_this_process, lines
from tests.cluster.raylets import Raylets
from tests.epoch_logs import without_times
from tests.toy_data import toy_words

pytestmark = pytest.mark.slow
SIZE, EPOCHS = 2, 30  # a lost worker may go on for about a second
SHARED_EPOCHS = 16  # each takes longer
TRAINING = Path("experiments/proxy_anchor_demo.yaml")


@pytest.fixture(scope="module")
def raylets(environment: dict[str, str]) -> Iterator[Raylets]:
    cluster = Raylets(environment)
    yield cluster
    cluster.close()


@pytest.fixture
def node(raylets: Raylets) -> subprocess.Popen[bytes]:
    """The only core of the cluster: the node left by the previous test, or a new one."""
    last = raylets.nodes[-1]
    return raylets.join() if last is raylets.head or last.poll() is not None else last


def test_doctor_reports_rejected_tokens(
    tmp_path: Path, raylets: Raylets, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the head runs."""
    words = ["doctor", "--address", raylets.address]
    known = raylets.environment
    command = Command(words, tmp_path, known)
    monkeypatch.setenv("HOME", str(tmp_path))
    without = {name: value for name, value in known.items() if "AUTH" not in name}
    refused = {
        "its token differs from that of the head": {**known, "RAY_AUTH_TOKEN": "0" * 64},
        "auth_token: cannot be read: No such file or directory. The cluster requires": without,
        "Allowed: the same Ray and Python on every host": known,
    }
    for text, environment in refused.items():
        if environment is known:
            monkeypatch.setattr("ray.__version__", "2.1.0")
        status, output = in_this_process(words, tmp_path, {**environment, "HOME": str(tmp_path)})
        assert (status, "Traceback" in output) == (1, False), output
        assert text in " ".join(output.split()), output
    status, output = command.finish()
    assert (status, "Traceback" in output) == (0, False), output
    assert "have these versions and see " in " ".join(output.split()), output


def test_an_ensemble_survives_the_loss_of_a_node_and_uses_a_new_one(
    tmp_path: Path,
    toy_images: Path,
    raylets: Raylets,
    node: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["ensemble", "--method", "dreml", "--ensemble-size", str(SIZE), "--out", "run"]
    words += ["--address", raylets.address, *toy_words(toy_images, EPOCHS)]
    run = tmp_path / "run"
    logs = [run / f"members/{index:03d}/metrics.jsonl" for index in range(SIZE)]
    command = Command(words, tmp_path, raylets.environment)
    command.until(lambda: lines(logs[1]) >= 2)
    first = (run / "members/000/scores.json").stat().st_mtime_ns
    raylets.lose(node)
    raylets.join()
    status, output = command.finish()
    assert status == 0, output
    assert "its process or node died; resumes from its last checkpoint" in output
    assert (run / "members/000/scores.json").stat().st_mtime_ns == first
    for log in logs:
        epochs = [json.loads(line)["epoch"] for line in log.open()]
        assert epochs == list(range(1, EPOCHS + 1))

    monkeypatch.setenv("DMLRAY_CACHE", raylets.environment["DMLRAY_CACHE"])
    torch.set_num_threads(1)
    plan = read_ensemble(run / "ensemble.yaml")
    alone = RunFolder(tmp_path / "alone")
    run_training(plan.member(1), alone, lambda epoch: None, Runtime(torch.device("cpu")))
    torn = np.load(run / "members/001/embeddings.npy")
    np.testing.assert_array_equal(torn, np.load(alone.embeddings))


def test_two_workers_of_which_one_is_lost_with_its_node_equal_one_worker(
    tmp_path: Path,
    toy_images: Path,
    raylets: Raylets,
    node: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = [*toy_words(toy_images, SHARED_EPOCHS), "backbone.batchnorm=frozen"]
    monkeypatch.setenv("DMLRAY_CACHE", raylets.environment["DMLRAY_CACHE"])
    torch.set_num_threads(1)
    plan = read_experiment(TRAINING, words).experiment
    one = RunFolder(tmp_path / "one")
    run_training(plan, one, lambda epoch: None, Runtime(torch.device("cpu")))

    other = raylets.join()
    log = tmp_path / "two/metrics.jsonl"
    words = ["train", str(TRAINING), *words, "budget.workers=2", "--address", raylets.address]
    command = Command([*words, "--out", "two"], tmp_path, raylets.environment)
    command.until(lambda: lines(log) >= 2)
    raylets.lose(node)
    before = log.read_text().splitlines()
    raylets.join()
    status, output = command.finish()
    raylets.lose(other)
    assert (status, "Traceback" in output) == (0, False), output
    check_log(log, SHARED_EPOCHS, before)
    for name in ("epoch", "loss"):  # rounding grows from epoch to epoch
        found, expected = ([line[name] for line in metrics_log.read(p)] for p in (log, one.metrics))
        assert found[:5] == pytest.approx(expected[:5], rel=1e-3)


def test_a_lost_node_costs_a_search_at_most_the_last_epoch(
    tmp_path: Path, toy_images: Path, raylets: Raylets, node: subprocess.Popen[bytes]
) -> None:
    epochs = EPOCHS // 2  # of two folds
    logs = [tmp_path / f"run/trials/{number:04d}/metrics.jsonl" for number in range(2)]
    words = ["tune", "searches/proxy_anchor_demo.yaml", *toy_words(toy_images, epochs)]
    words += ["trials=2", "folds=2", "scheduler=none", "--address", raylets.address, "--out", "run"]
    command = Command(words, tmp_path, raylets.environment)
    command.until(lambda: lines(logs[0]) >= 2)
    raylets.lose(node)
    before = logs[0].read_text().splitlines()
    raylets.join()
    status, output = command.finish()
    assert (status, "Traceback" in output) == (0, False), output
    assert "trial 0: its process or node died; resumes from its last checkpoints" in output
    check_log(logs[0], epochs, before)
    check_log(logs[1], epochs, [])


def check_log(log: Path, epochs: int, before: list[str]) -> None:
    """Check that each epoch was logged once, and those that were logged `before` are the same.

    An epoch is logged before its checkpoint is whole, so that the last may be trained again; the
    times of the others show that they were not.
    """
    found = metrics_log.read(log)
    assert [line["epoch"] for line in found] == list(range(1, epochs + 1))
    if before:
        assert log.read_text().splitlines()[: len(before) - 1] == before[:-1]
        last = found[len(before) - 1]
        assert without_times(last) == without_times(json.loads(before[-1]))


def test_a_process_without_a_share_of_a_gpu_sees_none(raylets: Raylets) -> None:
    """With fake GPUs on a node, a share of one is refused, and no share means the CPU."""
    node = raylets.join(cpus=2, gpus=2)
    command = [sys.executable, "-m", "tests.cluster.gpu_shares", raylets.address]
    answer = subprocess.run(command, env=raylets.environment, capture_output=True, text=True)
    raylets.lose(node)
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout)
    assert found["task"][0] == found["training"] == ""
    assert found["without"] == ["", "cpu", ""]
    seen, device, problem = found["with"]
    if torch.cuda.is_available():
        assert (seen, device) == ("0", "cuda:0")
    else:
        assert (seen, device) == ("0", "")
        assert "torch cannot use this GPU" in problem
        assert any("GPU 0: torch cannot" in line for node in found["doctor"] for line in node)
