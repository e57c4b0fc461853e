"""Work in a thread, and interrupts of the thread that waits for it."""

import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from dmlray.cluster.background import run_watched


class SignalledError(Exception):
    pass


@pytest.fixture
def signalled() -> Iterator[None]:
    """Send a signal to this thread soon."""

    def handler(number: int, frame: FrameType | None) -> None:
        raise SignalledError

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupt_stops_the_work_and_waits_for_its_end(signalled: None) -> None:
    asked, ended = threading.Event(), threading.Event()

    def work() -> None:
        assert asked.wait(20)
        time.sleep(0.3)  # it cleans up
        ended.set()

    with pytest.raises(SignalledError):
        run_watched(work, asked.set)
    assert ended.is_set()


def test_the_last_poll_is_after_the_end() -> None:
    done = threading.Event()
    seen: list[bool] = []
    run_watched(done.set, done.set, lambda: seen.append(done.is_set()))
    assert seen[-1]


def test_an_error_of_the_work_is_raised_in_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_watched(lambda: 1 / 0, lambda: None)
