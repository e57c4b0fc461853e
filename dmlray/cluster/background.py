"""Run blocking work in a thread, so that the main thread handles signals and the display."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")
_INTERVAL = 0.5  # seconds
_STOP_TIMEOUT = 5.0  # seconds


def run_watched(
    work: Callable[[], Result],
    stop: Callable[[], None],
    poll: Callable[[], None] = lambda: None,
) -> Result:
    """Return the result of `work`; call `poll` twice a second until then, and once at the end.

    If this thread is interrupted, `stop` requests the end of the work, which is awaited for at most
    5 seconds: a thread that waits for Ray as it shuts down, or calls it later, may crash this
    process or start Ray again.
    """
    # SimpleQueue is in C, so that a signal cannot corrupt it. `Thread.join` before Python 3.13 may
    # return early after a signal, and a signal may leave locks of Python code locked.
    results: SimpleQueue[Future[Result]] = SimpleQueue()

    def run() -> None:
        future: Future[Result] = Future()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        results.put(future)

    Thread(
        target=run, daemon=True
    ).start()  # a daemon, for which the exit of the process does not wait
    outcome = None
    try:
        while outcome is None:
            with suppress(Empty):
                outcome = results.get(timeout=_INTERVAL)
            poll()
    except BaseException:
        if outcome is None:
            stop()
            with suppress(Empty):
                results.get(timeout=_STOP_TIMEOUT)
        raise
    return outcome.result()
