"""One process writes a run: others are refused while it lives, and take over once it is dead."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from dmlray.api import lock_owner, run_lock
from dmlray.api.lock_owner import LockOwner
from dmlray.api.run_lock import RunLock
from dmlray.errors import ConfigError, StorageError
from dmlray.plans.run_folder import RunFolder
from tests.api.commands import another_process

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def held(folder: RunFolder) -> LockOwner:
    return LockOwner(**json.loads(folder.lock.read_bytes()))


def rewrite(folder: RunFolder, **changes: Any) -> None:
    """As another process, machine or time would have written it."""
    folder.lock.write_text(json.dumps({**asdict(held(folder)), **changes}))


@contextmanager
def heartbeats(folder: RunFolder) -> Iterator[None]:
    """The holder gives them."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(0.05):
            os.utime(folder.lock)

    thread = threading.Thread(target=beat)
    thread.start()
    yield
    ended.set()
    thread.join()


def elsewhere(folder: RunFolder) -> None:
    """Held by a process of another machine."""
    holder = LockOwner("far", "far 1", 7, "1", "now", "dmlray train --resume run", "1")
    folder.lock.write_text(json.dumps(asdict(holder)))


def test_the_second_process_is_refused_with_who_holds_the_run(run: RunFolder) -> None:
    with another_process(run) as first:
        before = run.lock.read_bytes()
        said = rf"run: is being trained by process {first.pid} on \S+ since .*\. Allowed: wait"
        with pytest.raises(ConfigError, match=said):
            RunLock(run).take()
        assert run.lock.read_bytes() == before


def test_the_same_process_cannot_open_a_run_twice(run: RunFolder) -> None:
    first = RunLock(run)
    first.take()
    with pytest.raises(ConfigError, match=f"process {os.getpid()} on"):
        RunLock(run).take()
    first.release()
    assert not run.lock.exists()


@pytest.mark.parametrize("part", ["members/003", "repeat", "search/repeat"])
@pytest.mark.parametrize("whole_first", [True, False])
def test_a_run_is_written_by_one_process_with_all_its_parts(
    run: RunFolder, part: str, whole_first: bool
) -> None:
    inner = RunFolder(run.path / part)
    inner.path.mkdir(parents=True)
    first, second = (run, inner) if whole_first else (inner, run)
    with another_process(first) as process:
        with pytest.raises(ConfigError, match=f"is being trained by process {process.pid}"):
            RunLock(second).take()
        assert not second.lock.exists()


def test_parts_of_a_run_are_opened_by_its_own_process(run: RunFolder) -> None:
    outer, inner = RunLock(run), RunLock(run.repeat)
    outer.take()
    run.repeat.path.mkdir()
    inner.take()
    assert inner.nested
    assert not outer.nested
    inner.release()
    outer.release()
    assert not run.lock.exists()
    assert not run.repeat.lock.exists()


def test_a_killed_holder_is_known_to_be_dead_at_once(run: RunFolder) -> None:
    with another_process(run) as first:
        os.kill(first.pid, signal.SIGKILL)
        while lock_owner._started(first.pid):  # a zombie, for its parent has not looked yet
            time.sleep(0.01)
        lock = RunLock(run)
        lock.take()
    assert held(run).process == os.getpid()
    lock.release()


def test_a_number_that_another_process_has_now_is_not_the_holder(run: RunFolder) -> None:
    with another_process(run):
        rewrite(run, started="1")
        lock = RunLock(run)
        lock.take()
        lock.release()


def test_a_stopped_holder_is_alive_however_long_it_is_silent(run: RunFolder) -> None:
    with another_process(run) as first:
        os.kill(first.pid, signal.SIGSTOP)
        os.utime(run.lock, (0, 0))
        with pytest.raises(ConfigError, match=f"process {first.pid}"):
            RunLock(run).take()


@pytest.mark.parametrize("content", ["another machine", "half of a file", "another format"])
def test_a_holder_that_cannot_be_looked_at_is_dead_once_it_is_silent(
    run: RunFolder, content: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_owner, "_LOOK", 0.01)
    elsewhere(run)
    if content == "half of a file":
        run.lock.write_bytes(run.lock.read_bytes()[:20])
    elif content == "another format":
        run.lock.write_text('{"pid": 7}')
    who = "process 7 on far" if content == "another machine" else "another process"
    with heartbeats(run), pytest.raises(ConfigError, match=f"is being trained by {who}"):
        RunLock(run).take()
    monkeypatch.setattr(lock_owner, "_LOOK", 1000.0)
    silent = run.lock.stat().st_mtime - lock_owner.HEARTBEAT_TIMEOUT - 5
    os.utime(run.lock, (silent, silent))
    lock = RunLock(run)
    lock.take()
    assert held(run).process == os.getpid()
    lock.release()


def test_a_command_that_is_started_again_elsewhere_waits_for_the_end_of_the_first(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_owner, "_LOOK", 0.01)
    monkeypatch.setattr(lock_owner, "HEARTBEAT_TIMEOUT", 0.2)
    elsewhere(run)
    lock = RunLock(run)
    lock.take()
    assert held(run).process == os.getpid()
    lock.release()


def test_the_clock_of_this_host_does_not_matter(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(run)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    monkeypatch.setattr(lock_owner, "_LOOK", 0.01)
    said = "without a heartbeat for 120 seconds it counts as dead"
    with heartbeats(run), pytest.raises(ConfigError, match=said):
        RunLock(run).take()


def test_a_holder_shows_again_and_again_that_it_lives(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "_LOOK", 0.01)
    monkeypatch.setattr(run_lock, "_BEAT", 0.02)
    lock = RunLock(run)
    lock.take()
    os.utime(run.lock, (0, 0))
    for _ in range(3000):
        if run.lock.stat().st_mtime:
            break
        time.sleep(0.01)
    assert run.lock.stat().st_mtime > 1e9
    lock.release()


@pytest.mark.parametrize("dead", [True, False])
def test_of_many_processes_one_gets_the_lock(run: RunFolder, dead: bool) -> None:
    if dead:
        with another_process(run):
            pass
    start, got = FORK.Event(), FORK.Queue()
    rivals = [FORK.Process(target=_try, args=(run, start, got)) for _ in range(8)]
    for rival in rivals:
        rival.start()
    start.set()
    taken = [got.get(timeout=60) for _ in rivals]
    for rival in rivals:
        rival.kill()
        rival.join()
    assert sum(taken) == 1


def _try(folder: RunFolder, start: Any, got: Any) -> None:
    start.wait()
    try:
        RunLock(folder).take()
        got.put(True)
    except ConfigError:
        got.put(False)
    time.sleep(600)


def _move(run: RunFolder) -> None:
    run.path.rename(run.path.with_name("moved"))


def _move_and_make_anew(run: RunFolder) -> None:
    _move(run)
    run.path.mkdir()


def _delete(run: RunFolder) -> None:
    run.lock.unlink()
    run.path.rmdir()


def _take_over(run: RunFolder) -> None:
    rewrite(run, nonce="another", host="far", process=7)


@pytest.mark.parametrize(
    ("lose", "said"),
    [
        (_move, "run: the run folder is gone"),
        (_move_and_make_anew, "run: the run folder is gone"),
        (_delete, "run: the run folder is gone"),
        (_take_over, "run: was taken over by process 7 on far"),
    ],
)
def test_who_loses_the_run_is_interrupted_and_learns_why(
    run: RunFolder, lose: Callable[[RunFolder], None], said: str
) -> None:
    lock = RunLock(run)
    lock.take()
    with pytest.raises(KeyboardInterrupt):
        lose(run)
        time.sleep(60)
    with pytest.raises(StorageError, match=said):
        lock.check()
    lock.release()
    assert run.lock.exists() == (lose is _take_over)


def test_locks_of_other_users_around_a_run_do_not_count(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = RunFolder(run.path.parent)
    with another_process(around):
        monkeypatch.setattr(os, "getuid", lambda: 65534)
        lock = RunLock(run)
        lock.take()
        lock.release()


@pytest.mark.skipif(not shutil.which("ps"), reason="needs ps")
def test_where_there_is_no_proc_ps_finds_living_and_dead_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: "/proc" not in str(path) and exists(path))
    assert lock_owner._started(os.getpid())
    assert lock_owner._started(2**22 - 1) is None
