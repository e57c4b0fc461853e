"""Signals that end a command: the first one does, later ones change nothing.

A second Ctrl-C must not break what the first one began: files being closed, Ray being ended, the
sentence that says how to go on, the interpreter's own end.
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
    """What becomes of a signal, and which one came."""

    def __init__(self, command: Path | None = None) -> None:
        self.received: int | None = None
        self._command = command
        self._held = self._in_ray = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """A signal waits for the end of the block, which cannot be left half done."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before
        if self.received and not before:
            raise KeyboardInterrupt

    @contextmanager
    def in_ray(self) -> Iterator[None]:
        """A signal is a KeyboardInterrupt: no other exception gets through Ray's waiting."""
        before, self._in_ray = self._in_ray, True
        try:
            yield
        finally:
            self._in_ray = before

    def install(self) -> dict[int, Any]:
        """Handle SIGNALS; return what did so before. A SIGHUP that nohup ignores stays ignored."""
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
            # An exception inside a library that is being imported comes out as any other one.
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
        command: The folder of the command line's modules, where this process ends with the block.
            What they import is not waited for, and once interrupted no signal is heard any more.
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
            # At its exit Python drops what is handled, but not what is ignored.
            signal.signal(number, signal.SIG_IGN if ending else handler)
        _current = None


def _importer(frame: FrameType | None) -> Path | None:
    """The module that began the import in which `frame` is, if it is in one."""
    found, inside = None, False
    while frame:
        name = frame.f_code.co_filename
        frozen = name.startswith("<frozen importlib")
        if inside and not frozen:
            found = Path(name)
        inside, frame = frozen, frame.f_back
    return found


def _end(number: int) -> None:
    with contextlib.suppress(OSError):  # a closed terminal
        os.write(2, b"interrupted\n")
    os._exit(128 + number)


def _forget() -> None:
    """A forked process is ended by its parent, silently, as any other one."""
    if _current:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


os.register_at_fork(after_in_child=_forget)
