"""Blocking work in a thread, so that this one stays free for signals and the display."""

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

Result = TypeVar("Result")
_EVERY = 0.5  # seconds
_PATIENCE = 5.0  # seconds


def run_watched(
    work: Callable[[], Result],
    poll: Callable[[], None] = lambda: None,
    stop: Callable[[], None] | None = None,
) -> Result:
    """Return what `work` returns, calling `look` twice a second meanwhile and once at the end.

    When this thread is interrupted, `stop` asks the work to end, and it gets a moment for that:
    a thread that begins a call of Ray once it is shut down starts another one, or ends the process.
    Work without a `stop` is left where it waits.
    """
    # A queue in C, for a signal leaves it whole. `Thread.join` before Python 3.13 may take a thread
    # for ended once a signal came, and locks in Python may be left as they are.
    results: SimpleQueue[Future[Result]] = SimpleQueue()

    def run() -> None:
        future: Future[Result] = Future()
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)
        results.put(future)

    Thread(target=run, daemon=True).start()  # an interrupted driver does not wait for a daemon
    outcome = None
    try:
        while outcome is None:
            with suppress(Empty):
                outcome = results.get(timeout=_EVERY)
            poll()
    except BaseException:
        if stop and outcome is None:
            stop()
            with suppress(Empty):
                results.get(timeout=_PATIENCE)
        raise
    return outcome.result()
