"""Cells on threads: at most so many at a time, stopped together."""

import threading
import time

import pytest

from dmlray.cluster.side_by_side import run_side_by_side
from dmlray.reporting.progress import Display, SilentDisplay


def test_one_at_a_time_runs_here_with_the_display() -> None:
    here, display = threading.current_thread(), SilentDisplay()
    seen: list[tuple[int, bool, bool]] = []

    def work(item: int, shown: Display) -> None:
        seen.append((item, threading.current_thread() is here, shown is display))

    done: list[int] = []
    run_side_by_side([1, 2], work, 1, display, done.append)
    assert seen == [(1, True, True), (2, True, True)]
    assert done == [1, 2]


def test_as_many_run_as_allowed_and_no_more() -> None:
    both, running, most = threading.Barrier(2, timeout=10), 0, 0
    lock = threading.Lock()

    def work(item: int, shown: Display) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()  # passes only if two run at once
        with lock:
            running -= 1

    done: list[int] = []
    run_side_by_side(range(6), work, 2, SilentDisplay(), done.append)
    assert most == 2
    assert sorted(done) == list(range(6))


def test_a_failure_stops_the_others_before_it_is_raised() -> None:
    started, stopped = threading.Event(), threading.Event()

    def work(item: int, shown: Display) -> None:
        if item == 0:
            assert started.wait(10)
            raise ValueError("disk full")
        started.set()
        try:
            while True:
                shown.update(0)
                time.sleep(0.01)
        except KeyboardInterrupt:
            stopped.set()
            raise

    with pytest.raises(ValueError, match="disk full"):
        run_side_by_side([0, 1, 2], work, 2, SilentDisplay())
    assert stopped.is_set()
