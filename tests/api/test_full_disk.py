"""What a disk refuses ends every command with one sentence, and the run can go on."""

import errno
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.exceptions import StorageInternalError
from ray.tune.error import TuneError

from dmlray.cluster.search import run as searching
from dmlray.cluster.search import study_storage
from dmlray.errors import DiskFullError, Interrupted
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.api.commands import (
    EXPERIMENT,
    TRAINS,
    failing_replace,
    full_disk,
    new_run,
    nothing_trains,
    run,
    words,
)
from tests.toy_data import toy_words

PLANS = {"train": "experiment", "tune": "search", "cv": "cross_validation"}


@pytest.mark.parametrize("kind", TRAINS)
@pytest.mark.parametrize("file", ["plan", "environment.json"])
def test_nothing_is_left_behind_when_the_disk_is_full_from_the_start(
    kind: str, file: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{PLANS.get(kind, kind)}.yaml" if file == "plan" else file
    failing_replace(name, monkeypatch, errno.ENOSPC)
    result = run(*words(kind, images), "--out", "deep/run")
    assert result.exit_code == 1, result.output
    assert result.output.splitlines()[-1].endswith(f"{name}: the disk is full: free some space")
    assert not Path("deep").exists()


@pytest.mark.parametrize("kind", TRAINS)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: free some space. "),
        (OSError(errno.EDQUOT, "Quota", "run/x"), "run/x: the disk is full: free some space. "),
        (OSError(errno.EROFS, "Read-only file system", "run/x"), "run/x: Read-only file system. "),
        (OSError(errno.EIO, "Input/output error", "run/x"), "run/x: Input/output error. "),
        (DiskFullError("the disk is full: free some space"), "the disk is full: free some space. "),
        (Interrupted(15), "interrupted. "),
        (KeyboardInterrupt(), "interrupted. "),
    ],
)
def test_what_a_disk_refuses_is_one_sentence_with_the_command_to_go_on(
    kind: str,
    error: BaseException,
    said: str,
    images: Path,
    no_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing_trains(monkeypatch, error)
    result = run(*words(kind, images), "--out", "my run")
    last = result.output.splitlines()[-1]
    assert last == f"{said}Resume with: dmlray {kind} --resume 'my run'"
    assert result.exit_code == getattr(error, "exit_status", 130 if "inter" in said else 1)
    assert not Path("my run/lock.json").exists()
    again = run(kind, "--resume", "my run")  # and it may
    assert again.output.splitlines()[-1] == last


FILES = ("merge.yaml", "curve.json", "curve.png", "report.html", "scores.json", "events")


def test_a_disk_that_is_full_in_any_write_of_a_merge(
    finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FILES:
        with monkeypatch.context() as patch:
            if name == "events":
                patch.setattr("tensorboardX.event_file_writer.EventsWriter.flush", full_disk)
            else:
                failing_replace(name, patch, errno.ENOSPC)
            result = run("merge", *finished, "--out", "merged")
            assert result.exit_code == 1
            last = result.output.splitlines()[-1]
            assert "the disk is full: free some space" in last
            assert name == "events" or f"/{name}: " in last
            begun = name != "merge.yaml"
            assert last.endswith("Resume with: dmlray merge --resume merged") == begun
            assert Path("merged").exists() == begun
        if begun:
            assert run("merge", "--resume", "merged").exit_code == 0
            assert not Path("merged/lock.json").exists()
            shutil.rmtree("merged")


@pytest.mark.parametrize("name", ["embeddings.npy", "_train.npy"])
def test_a_disk_that_is_full_while_embeddings_are_written(
    name: str, finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def refuse(path: Path, content: Any) -> int:
        return full_disk() if name in path.name else write(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    result = run("merge", *finished, "--pca", "3", "--out", "merged")
    said = f"{name}: the disk is full: free some space. Resume with: dmlray merge --resume merged"
    assert (result.exit_code, result.output.splitlines()[-1].endswith(said)) == (1, True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """One MB, in a file system of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Leave so many bytes."""
    free = shutil.disk_usage(disk).free
    (disk / "fill").write_bytes(bytes(max(0, free - leave)))


@pytest.mark.parametrize("leave", [0, 4096, 16384, 40960])
def test_a_merge_on_a_real_disk_that_fills_up(
    leave: int, finished: list[str], small_disk: Path
) -> None:
    fill(small_disk, leave)
    result = run("merge", *finished, "--out", "disk/merged")
    assert result.exit_code == 1
    assert "the disk is full: free some space" in result.output.splitlines()[-1]
    (small_disk / "fill").unlink()
    again = ["--resume", "disk/merged"] if Path("disk/merged").exists() else [*finished, "--out"]
    assert run("merge", *again, *([] if again[0] == "--resume" else ["disk/merged"])).exit_code == 0


@pytest.mark.parametrize("leave", [0, 40960])
def test_a_study_on_a_real_disk_that_is_full(leave: int, small_disk: Path) -> None:
    fill(small_disk, leave)
    with pytest.raises(DiskFullError, match=r"study\.db: the disk is full: free some space"):
        study_storage.create(small_disk / "study.db", ["max"], {})
    assert {path.name for path in small_disk.iterdir()} == {"fill"}


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_disk_that_fills_up_while_a_study_is_written(wrapped: bool, tmp_path: Path) -> None:
    full = pytest.raises(DiskFullError, match=r"study\.db: the disk is full: free some space")
    with full, searching.explained(RunFolder(tmp_path)):
        try:
            message = "An exception is raised during the commit."
            raise StorageInternalError(message) from OSError("database or disk is full")
        except StorageInternalError:
            if wrapped:
                raise TuneError("Traceback ...")  # noqa: B904  # as Tune does
            raise


@pytest.mark.parametrize("leave", [0, 4096])
def test_a_training_on_a_real_disk_that_fills_up(
    leave: int, images: Path, small_disk: Path
) -> None:
    plan = read_experiment(EXPERIMENT, toy_words(images, 1)).experiment
    (small_disk / "cache").mkdir()
    fill(small_disk, leave)
    full = pytest.raises(DiskFullError, match="the disk is full: free some space")
    with full, new_run(RunFolder(small_disk / "run")) as opened:
        opened.start()
        run_training(plan, opened.folder, lambda epoch: None, Runtime(torch.device("cpu")))


def test_a_cache_on_a_real_disk_that_is_full(
    images: Path, small_disk: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(small_disk))
    monkeypatch.setattr("dmlray.data.cache.image_cache.check_space", lambda folder, size: None)
    fill(small_disk, 8192)
    result = run(*words("train", images), "--out", "run")
    assert result.exit_code == 1
    assert not Path("run").exists()
    assert "the disk is full: free some space" in result.output.splitlines()[-1]
