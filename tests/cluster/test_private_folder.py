"""Folders of Ray are closed to others; those of killed processes, and only those, are removed."""

import os
import select
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dmlray.cluster import reaper
from dmlray.cluster.private_folder import is_private, private_folder
from dmlray.errors import ResourceError

WRITER = (
    "import sys, time; file = open(sys.argv[1], sys.argv[2]); print(flush=True); time.sleep(99)"
)
HOLDER = """
import sys, time
from pathlib import Path
from dmlray.cluster.private_folder import private_folder
with private_folder(Path(sys.argv[1])) as folder:
    print(folder, flush=True)
    time.sleep(99)
"""


@contextmanager
def running(program: str, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Start `program` and wait for its first line."""
    command = [sys.executable, "-c", program, *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            process.args = process.stdout.readline().strip()
            yield process
        finally:
            process.kill()


def log_of(folder: Path, name: str, driver: int = 1) -> Path:
    """A log of Ray, whose name has the driver's process id."""
    path = folder / "r" / f"session_2026-01-31_23-59-59_000000_{driver}" / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_a_private_folder_is_closed_to_others_and_removed(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with private_folder(tmp_path) as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            (folder / "full").mkdir()
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


def test_the_next_one_removes_only_folders_of_killed_processes(tmp_path: Path) -> None:
    (tmp_path / "dml-0123abcd").mkdir()  # without a lock: not of dmlray
    (tmp_path / "dml-results").mkdir()
    (tmp_path / "dml-results" / "dmlray.lock").touch()
    (tmp_path / "dml-deadbeef").symlink_to(tmp_path / "dml-results")
    kept = set(tmp_path.iterdir())
    with running(HOLDER, tmp_path) as dead, running(HOLDER, tmp_path) as alive:
        left, held = Path(str(dead.args)), Path(str(alive.args))
        dead.kill()
        dead.wait()
        with running(WRITER, log_of(left, "worker.out"), "w") as orphan:
            with private_folder(tmp_path) as mine:
                assert set(tmp_path.iterdir()) == kept | {held, mine}
            assert orphan.wait(10) == -signal.SIGKILL
        assert alive.poll() is None


def test_processes_of_a_ray_are_those_that_write_its_logs(tmp_path: Path) -> None:
    log, own = log_of(tmp_path, "raylet.out"), log_of(tmp_path, "python-core-driver_1.log")
    other = log_of(tmp_path / "elsewhere", "raylet.out").resolve()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "r").symlink_to(tmp_path / "r")
    log.touch()
    with (
        running(WRITER, log, "w") as raylet,
        running(WRITER, log, "r"),  # a reader
        running(WRITER, own, "w"),  # the driver, or its fork
        running(WRITER, tmp_path / "r" / "note", "w"),
    ):
        log.unlink()  # still held open
        assert reaper.writers(tmp_path) == [raylet.pid]
        assert reaper.writers(other.parent) == []
        reaper.end(tmp_path, patience=0)
        assert raylet.wait(10) == -signal.SIGKILL
    assert not tmp_path.exists()


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    problem = "gone: no folder can be created there: No such file"
    with pytest.raises(ResourceError, match=problem), private_folder(tmp_path / "gone"):
        pass


@pytest.mark.parametrize("how", ["closes", "is killed"])
def test_the_reaper_waits_only_for_the_driver(tmp_path: Path, how: str) -> None:
    """Even if a fork of the driver keeps the pipe open."""
    folder = tmp_path / "dml-0123abcd"
    folder.mkdir()
    driver = f"""
import os, subprocess, sys, time
command = [sys.executable, "-I", {reaper.__file__!r}, {str(folder)!r}, str(os.getpid())]
reaper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
print(reaper.pid, flush=True)
if {how!r} == "closes":
    reaper.stdin.close()
    reaper.wait()
    print(os.path.exists({str(folder)!r}), flush=True)
elif os.fork() == 0:
    time.sleep(20)
time.sleep(60)
"""
    with running(driver) as process:
        assert process.stdout is not None
        if how == "closes":
            assert process.stdout.readline() == "False\n"
        else:
            assert folder.exists()
            process.kill()
            end = os.pidfd_open(int(str(process.args)))
            assert select.select([end], [], [], 20)[0], "the reaper did not end"
    assert not folder.exists()


@pytest.mark.parametrize(
    ("mode", "well"), [(0o700, True), (0o755, True), (0o1777, True), (0o777, False), (0o770, False)]
)
def test_a_folder_where_others_could_replace_things_is_not_private(
    tmp_path: Path, mode: int, well: bool
) -> None:
    tmp_path.chmod(mode)
    assert is_private(tmp_path) is well
