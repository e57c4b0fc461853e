"""Blocking work in a thread, so that this one stays free for signals and the display."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")
_EVERY = 0.5  # seconds


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


def watch(work: Callable[[], Result], look: Callable[[], None]) -> Result:
    """Return what `work` returns, calling `look` twice a second meanwhile and once at the end."""
    worker = _Worker(work)
    worker.start()
    while worker.is_alive():
        worker.join(_EVERY)
        look()
    if worker.error:
        raise worker.error
    return worker.result
