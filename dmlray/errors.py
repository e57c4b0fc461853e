"""What can go wrong in a user's hands, and the one grammar in which it is said."""

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dmlray.printable import printable

_MOST_PROBLEMS = 50  # that are listed
_MOST_LETTERS = 4000  # of one problem: it may list all that is allowed


@dataclass(frozen=True)
class Call:
    """A call of the Python API that an error proposes; `dmlray.cli` writes it as a command."""

    function: str
    arguments: Mapping[str, str | bool | Sequence[str]]

    def __str__(self) -> str:
        written = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"dmlray.{self.function}({written})"


class DmlrayError(Exception):
    """A mistake or mishap that a user can mend; its text says where, what and what is allowed.

    The text is one line: names in it cannot break it or do anything to a terminal.
    Parameters of the Python API stand between backticks, for which `dmlray.cli` prints its options.
    `resume` is the call that goes on from here, where there is one.
    """

    exit_status = 2
    resume: Call | None = None

    def __init__(self, text: str) -> None:
        super().__init__(_one_line(text))

    def __str__(self) -> str:
        return self.written(str)

    def written(self, write: Callable[[Call], str]) -> str:
        """Return the text, followed by the call to go on with as `write` writes it."""
        text = super().__str__()
        return f"{text}. Go on with: {printable(write(self.resume))}" if self.resume else text


class ConfigError(DmlrayError):
    """A file, option or override asks for something that does not exist or is not allowed."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, tuple(problems)
        if len(problems) == 1:
            super().__init__(f"{source}: {problems[0]}")
            return
        super().__init__(f"{source}: {len(problems)} problems")
        listed = [_one_line(problem) for problem in problems[:_MOST_PROBLEMS]]
        if len(problems) > _MOST_PROBLEMS:
            listed.append(f"and {len(problems) - _MOST_PROBLEMS} more")
        self.args = ("\n  ".join([*self.args, *listed]),)

    def __reduce__(self) -> tuple[type, tuple[str, tuple[str, ...]]]:
        return type(self), (self.source, self.problems)  # pickled when a worker raises it


class DataError(DmlrayError):
    """Images, labels or weights are missing, damaged or contradict each other."""


class DamagedCheckpoint(DataError):
    """A training cannot go on from its checkpoint; it could begin again without it."""


class ResourceError(DmlrayError):
    """The machine or cluster cannot give what is asked for."""


class RunError(DmlrayError):
    """A run started and failed."""

    exit_status = 1


class UnfinishedRun(RunError):
    """A run ended early by no fault of its plan; it can go on once the cause is mended."""


class StorageError(UnfinishedRun):
    """A file cannot be read or written."""


class DiskFull(StorageError):
    """The disk or the user's quota is used up: the same will happen to every other write."""


class Interrupted(BaseException):
    """Ctrl-C or SIGTERM; no Exception, so that nothing on the way swallows it.

    `resume` is the call that goes on from here, where there is one.
    """

    def __init__(self, number: int) -> None:
        self.exit_status = 128 + number
        self.resume: Call | None = None
        super().__init__(signal.Signals(number).name)


def _one_line(text: str) -> str:
    if len(text) > _MOST_LETTERS:
        text = f"{text[: _MOST_LETTERS // 2]}...{text[-_MOST_LETTERS // 2 :]}"
    return printable(text)
