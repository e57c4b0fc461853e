"""Run several searches or ensembles of this process at a time, on threads that can be stopped."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TypeVar

from dmlray.reporting.progress import Display, SilentDisplay

Item = TypeVar("Item")
_INTERVAL = 0.5  # seconds
_STOP_TIMEOUT = 10.0  # seconds


class _StoppableDisplay(SilentDisplay):
    """Interrupts its thread at the next sign of progress, which comes twice a second."""

    def __init__(self, stopped: Event) -> None:
        super().__init__()
        self._stopped = stopped

    def start(self, title: str, total: int) -> None:
        self._check()

    def update(self, done: int, note: str = "") -> None:
        self._check()

    def log(self, text: str) -> None:
        self._check()

    def _check(self) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt


def run_side_by_side(
    items: Sequence[Item],
    work: Callable[[Item, Display], None],
    at_once: int,
    display: Display,
    on_done: Callable[[Item], None] = lambda item: None,
) -> None:
    """Call `work` with each item and a display; `at_once` of them at a time.

    One at a time runs in this thread, with `display`; several have displays of their own.

    Raises:
        BaseException: The first that `work` raises; the other threads are stopped before.
    """
    if at_once == 1:
        for item in items:
            work(item, display)
            on_done(item)
        return
    ended: SimpleQueue[tuple[int, BaseException | None]] = SimpleQueue()
    stopped, waiting, running = Event(), list(range(len(items))), dict[int, Thread]()

    def run(number: int) -> None:
        try:
            work(items[number], _StoppableDisplay(stopped))
            ended.put((number, None))
        except BaseException as error:
            ended.put((number, error))

    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop(0)
                arguments = (copy_context().run, run, number)
                running[number] = Thread(target=arguments[0], args=arguments[1:], daemon=True)
                running[number].start()
            with suppress(Empty):
                number, error = ended.get(timeout=_INTERVAL)
                del running[number]
                if error:
                    raise error
                on_done(items[number])
    finally:
        # A thread that calls Ray after its shutdown would start Ray again.
        stopped.set()
        for thread in running.values():
            thread.join(_STOP_TIMEOUT)
