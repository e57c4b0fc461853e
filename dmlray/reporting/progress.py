"""One progress display: bars in a terminal, plain lines elsewhere."""

import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID
from rich.text import Text

from dmlray.printable import printable, wrapped

_BAR = 20  # columns, in terminals of at least four times as many
_STARTING = 60.0  # seconds that processes may take to start
_LINE_EVERY = 2.0  # seconds between plain lines, so that logs stay readable


class Display:
    """Counts steps (epochs of trials or members) and prints messages.

    Goes to standard error, so that results can be piped.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._title, self._total, self._done = "", 0, 0
        self._started = self._last_line = 0.0
        self._first = (0, 0.0)  # steps at the first update, and when

    def __enter__(self) -> "Display":
        if self.console.is_terminal:
            bar = [BarColumn(bar_width=_BAR)] if self.console.width >= 4 * _BAR else []
            width = self.console.width - 2 - (_BAR + 1) * len(bar)
            self._progress = Progress(
                SpinnerColumn(), *bar, _Fitted(width), console=self.console, transient=True
            )
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress:
            self._progress.stop()

    def start(self, title: str, total: int) -> None:
        """Begin counting `total` steps of `title`; what was counted before is put away."""
        self._title, self._total, self._done = title, total, 0
        self._started = self._last_line = time.monotonic()
        self._first = (0, self._started)
        if self._progress:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task = self._progress.add_task(title, total=total, note="")
        else:
            self.log(f"{title}: {total} to do")

    def update(self, done: int, note: str = "") -> None:
        """So many steps are done in all."""
        moved, self._done = done != self._done, done
        if moved and not self._first[0]:
            self._first = (done, time.monotonic())
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=done, note=note)
        elif moved and (done == self._total or time.monotonic() - self._last_line > _LINE_EVERY):
            self._last_line = time.monotonic()
            self.log(f"{self._title}: {done}/{self._total} {self._eta()} {note}".rstrip())

    def count(self, title: str, unit: int = 1) -> Callable[[int, int], None]:
        """A function of (done, all), shown in `unit`s, that begins to count when first called."""
        begun = False

        def count(done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                self.start(title, -(-total // unit))
                begun = True
            self.update(-(-done // unit))

        return count

    def count_images(self, title: str) -> Callable[[int, int], None]:
        """Like `count`, with images/s; images of an earlier session are only mentioned."""
        begun: list[tuple[float, int]] = []

        def count(done: int, total: int) -> None:
            if not begun:
                begun.append((time.monotonic(), done))
                there = f" ({done} are there)" if done else ""
                self.start(f"{title}{there}", total - done)
            (start, before), now = begun[0], time.monotonic()
            self.update(done - before, speed((done - before) / max(now - start, 1e-9)))

        return count

    def log(self, text: str) -> None:
        """A line that stays, broken between words in a terminal that is narrower."""
        parts = wrapped(text, self.console.width) if self.console.is_terminal else [printable(text)]
        for part in parts:
            self.console.print(Text(part), soft_wrap=True)

    def _eta(self) -> str:
        """From the first step on, where there are more: what starts processes is no step."""
        now, (first, at) = time.monotonic(), self._first
        steps, taken = self._done - first, now - at
        if not steps:  # the first step itself, which the start may dominate
            steps, taken = self._done, now - self._started
            if not steps or taken < _STARTING:
                return ""
        return f"({minutes(taken / steps * (self._total - self._done))} left)"


class SilentDisplay(Display):
    """Says nothing: for use as a library."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))


Shown = Display | Literal["auto"] | None  # what a function of `dmlray.api` takes as `display`


@contextmanager
def shown(display: Shown) -> Iterator[Display]:
    """Open a display for "auto", a silent one for None; one that is open already stays open."""
    if isinstance(display, Display):
        yield display
        return
    with Display() if display == "auto" else SilentDisplay() as opened:
        yield opened


class _Fitted(ProgressColumn):
    """The count, and as much else as fits beside it; no number is cut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self._width = max(width, 1)

    def render(self, task: Task) -> Text:
        line = f"{task.completed:.0f}/{task.total or 0:.0f}"
        title = max(self._width - len(line) - 1, 1)
        parts = [textwrap.shorten(printable(task.description), title, placeholder="…")]
        parts += [minutes(task.elapsed), f"{minutes(task.time_remaining)} left"]
        for part in (*parts, printable(task.fields["note"])):
            if part and len(line) + 1 + len(part) <= self._width:
                line += f" {part}"
        return Text(line, no_wrap=True)


def speed(images_per_second: float) -> str:
    """Write a number of images per second; nothing for 0."""
    return f"{images_per_second:,.0f} images/s" if images_per_second else ""


def minutes(seconds: float | None) -> str:
    """Write seconds as minutes and seconds, 1:05."""
    return "-:--" if seconds is None else str(timedelta(seconds=int(seconds))).removeprefix("0:")
