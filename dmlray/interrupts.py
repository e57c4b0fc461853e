"""Handling of signals that end a command: the first one is handled, later ones are ignored.

A second Ctrl-C must not interrupt the cleanup that the first one started: closing files, stopping
Ray, printing the command that resumes, the interpreter's exit.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from dmlray.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_RETRY = 0.1  # seconds


class Interrupts:
    """Signal handlers, and the first signal received."""

    def __init__(self, command: Path | None = None) -> None:
        self.received: int | None = None
        self._command = command
        self._held = self._in_ray = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Defer signals to the end of the block, which must not be left halfway."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        if self.received and not before:
            raise KeyboardInterrupt

    @contextmanager
    def in_ray(self) -> Iterator[None]:
        """Raise KeyboardInterrupt on a signal: Ray's blocking calls pass on no other exception."""
        before, self._in_ray = self._in_ray, True
        try:
            yield
        finally:
            self._in_ray = before

    def install(self) -> dict[int, Any]:
        """Handle SIGNALS; return the previous handlers. A SIGHUP ignored by nohup stays ignored."""
        before: dict[int, Any] = {
            number: signal.getsignal(number) or signal.SIG_DFL for number in SIGNALS
        }
        if before[signal.SIGHUP] == signal.SIG_IGN:
            del before[signal.SIGHUP]
        for number in before:
            signal.signal(number, self._handle)
        return before

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.received:
            return
        importer = _importer(frame)
        if importer and self._command and importer.is_relative_to(self._command):
            _end(number)
        if importer and not self._held:
            # An exception during the import of a library may be converted or caught there.
            threading.Timer(_RETRY, os.kill, (os.getpid(), number)).start()
            return
        self.received = number
        if not self._held:
            raise KeyboardInterrupt if self._in_ray else Interrupted(number)


_current: Interrupts | None = None


@contextmanager
def interruptible(command: Path | None = None) -> Iterator[Interrupts]:
    """Handle SIGINT, SIGTERM and SIGHUP in the block, unless an outer block or thread does.

    Args:
        command: Folder of the command line's modules if this process ends with the block. Their
            imports are interrupted at once, and after an interrupt all signals are ignored.
    """
    global _current
    if _current or threading.current_thread() is not threading.main_thread():
        yield _current or Interrupts()
        return
    _current = Interrupts(command)
    before = _current.install()
    try:
        yield _current
    finally:
        ending = command and _current.received
        for number, handler in before.items():
            # At exit Python resets handlers, but keeps ignored signals ignored.
            signal.signal(number, signal.SIG_IGN if ending else handler)
        _current = None


def _importer(frame: FrameType | None) -> Path | None:
    """Return the file whose import statement `frame` runs in; None outside of imports."""
    importer, inside = None, False
    while frame:
        name = frame.f_code.co_filename
        frozen = name.startswith("<frozen importlib")
        if inside and not frozen:
            importer = Path(name)
        inside, frame = frozen, frame.f_back
    return importer


def _end(number: int) -> None:
    with contextlib.suppress(OSError):  # a closed terminal
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _forget() -> None:
    """Restore the default handlers in a forked process, which its parent ends."""
    if _current:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
