"""Errors that a user can fix, and the grammar of their messages."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dmlray.printable import printable

_MAX_PROBLEMS = 50  # listed
_MAX_LENGTH = 4000  # characters of one problem, which may list all allowed values


@dataclass(frozen=True)
class Call:
    """A call of the Python API that an error suggests; `dmlray.cli` prints it as a command."""

    function: str
    arguments: Mapping[str, str | bool | Sequence[str]]

    def __str__(self) -> str:
        written = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"dmlray.{self.function}({written})"


class DmlrayError(Exception):
    """An error that a user can fix; its text has the place, the problem and what is allowed.

    The text is one line, with control characters of names escaped. It has parameters of the Python
    API in backticks, for which `dmlray.cli` prints its options.

    Attributes:
        resume: Call that resumes the run, if there is one.
    """

    exit_status = 2
    resume: Call | None = None

    def __init__(self, text: str) -> None:
        super().__init__(_one_line(text))

    def __str__(self) -> str:
        return self.written(str)

    def written(self, write: Callable[[Call], str]) -> str:
        """Return the text, followed by the call that resumes, formatted by `write`."""
        text = super().__str__()
        return f"{text}. Resume with: {printable(write(self.resume))}" if self.resume else text


class ConfigError(DmlrayError):
    """A file, option or override has a value that does not exist or is not allowed."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, tuple(problems)
        if len(problems) == 1:
            super().__init__(f"{source}: {problems[0]}")
            return
        super().__init__(f"{source}: {len(problems)} problems")
        listed = [_one_line(problem) for problem in problems[:_MAX_PROBLEMS]]
        if len(problems) > _MAX_PROBLEMS:
            listed.append(f"and {len(problems) - _MAX_PROBLEMS} more")
        self.args = ("\n  ".join([*self.args, *listed]),)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.source, self.problems)  # pickled when a worker raises it


class DataError(DmlrayError):
    """Images, labels or weights are missing, damaged or contradict each other."""


class DamagedCheckpointError(DataError):
    """A training cannot resume from its checkpoint; it could start again without it."""


class ResourceError(DmlrayError):
    """The machine or cluster lacks the requested resources."""


class RunError(DmlrayError):
    """A run started and failed."""

    exit_status = 1


class UnfinishedRunError(RunError):
    """A run ended early, but not because of its plan; it can be resumed once the cause is fixed."""


class StorageError(UnfinishedRunError):
    """A file cannot be read or written."""


class DiskFullError(StorageError):
    """The disk or the user's quota is full, so every other write will fail, too."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; not an `Exception`, so that no handler of those catches it.

    Attributes:
        resume: Call that resumes the run, if there is one.
    """

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        self.resume: Call | None = None
        super().__init__(signal.Signals(number).name)


def _one_line(text: str) -> str:
    if len(text) > _MAX_LENGTH:
        text = f"{text[: _MAX_LENGTH // 2]}...{text[-_MAX_LENGTH // 2 :]}"
    return printable(text)
