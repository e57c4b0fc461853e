"""What dmlray prints: names are shown with their control characters escaped, and no line is cut."""

import io
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TextIO

import click

from dmlray.errors import Call, Interrupted
from dmlray.printable import printable, wrapped


def echo(line: str = "", err: bool = False) -> None:
    """Print one line."""
    click.echo(printable(line), err=err)


def echo_wrapped(line: str) -> None:
    """Print one line of a list, broken between words where the terminal is narrower."""
    width = _width()
    for part in wrapped(line, width) if width else [printable(line)]:
        click.echo(part)


def echo_error(text: str) -> None:
    """Print an error, of which each problem has a line."""
    for line in text.split("\n"):  # names in it have no line breaks any more
        echo(line, err=True)


def echo_usage_error(error: click.ClickException) -> None:
    """Print what click found wrong with a command."""
    error.message = printable(error.message)  # type: ignore[misc]
    error.show()


def exit_interrupted(error: Interrupted, write: Callable[[Call], str]) -> NoReturn:
    """Print the call that resumes, formatted by `write`, and exit with the signal's status."""
    resume = f". Resume with: {write(error.resume)}" if error.resume else ""
    with suppress(OSError):  # a closed terminal
        echo(f"interrupted{resume}", err=True)
    sys.exit(error.exit_status)


@contextmanager
def guarded_output() -> Iterator[None]:
    """Escape what is logged; end with status 1 where standard output or error takes no more.

    Nothing is printed for a closed pipe: its reader has read enough.
    """
    logging.lastResort = _EscapedLines(logging.WARNING)
    streams = (sys.stdout, sys.stderr)
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    except OSError as error:
        # A write to a stream names no file, and flushing an unbuffered one raises nothing.
        if error.filename is None and _is_broken(*streams, probe="\n"):
            sys.exit(1)
        raise
    except SystemExit as end:
        if _is_broken(*streams):
            sys.exit(end.code or 1)
        raise
    except Interrupted:
        _is_broken(*streams)
        raise
    if _is_broken(*streams):
        sys.exit(1)


def _is_broken(output: TextIO | None, error: TextIO | None, probe: str = "") -> bool:
    """Whether a stream does not take what is written to it; say so, and write no more to it.

    Args:
        output: Standard output.
        error: Standard error, where the sentence goes.
        probe: Written to standard output; standard error is where the sentence goes.
    """
    broken = False
    for name, stream in (("output", output), ("error", error)):
        if stream is None:  # it was closed before dmlray began
            continue
        try:
            stream.write(probe if stream is output else "")
            stream.flush()
        except OSError as failure:
            broken = True
            _discard(stream)
            if not isinstance(failure, BrokenPipeError):
                with suppress(OSError):
                    echo(f"standard {name}: {failure.strerror}", err=True)
    return broken


def _discard(stream: TextIO) -> None:
    """Let the rest go nowhere: the interpreter flushes once more when it ends."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _width() -> int | None:
    """Columns of the terminal; None without a terminal and without COLUMNS."""
    if os.environ.get("COLUMNS", "").isdigit() or (sys.stdout and sys.stdout.isatty()):
        return max(1, shutil.get_terminal_size().columns)
    return None


class _EscapedLines(logging.Handler):
    """Print what no other handler takes, as `logging` does by itself."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            echo(self.format(record), err=True)
