"""Blocking work in a thread, so that this one stays free for signals and the display."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")
_EVERY = 0.5  # seconds
_PATIENCE = 5.0  # seconds


class _Worker(threading.Thread, Generic[Result]):
    """A daemon: an interrupted driver does not wait for it."""

    def __init__(self, work: Callable[[], Result]) -> None:
        super().__init__(daemon=True)
        self.work = work
        self.result: Result
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.result = self.work()
        except BaseException as error:
            self.error = error


def watch(
    work: Callable[[], Result],
    look: Callable[[], None] = lambda: None,
    stop: Callable[[], None] = lambda: None,
) -> Result:
    """Return what `work` returns, calling `look` twice a second meanwhile and once at the end.

    When this thread is interrupted, `stop` asks the work to end, and it gets a moment for that:
    Ray ends the whole process, with a status of its own, if a thread still calls it once it is
    shut down.
    """
    worker = _Worker(work)
    worker.start()
    try:
        while worker.is_alive():
            worker.join(_EVERY)
            look()
    except BaseException:
        stop()
        worker.join(_PATIENCE)
        raise
    if worker.error:
        raise worker.error
    return worker.result
