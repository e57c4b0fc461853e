"""From the parameters of `dmlray.api`, which errors name, to the words of the command line."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator

import click

from dmlray.errors import Call

_COMMANDS = {
    "cross_validate": "cv",
    "prepare_data": "data prepare",
    "verify_data": "data verify",
    "zero_shot": "zero-shot",
}
_WORDS = {"experiment": "EXPERIMENT", "search": "SEARCH", "overrides": "KEY=VALUE", "file": "FILE"}
_PARAMETER = re.compile("`([a-z_]+)`")


def with_options(text: str, commands: click.Group, name: str | None = None) -> str:
    """Put options in the place of the parameters that stand between backticks.

    Args:
        text: Message that names parameters.
        commands: Group whose options replace them.
        name: The command that was typed, whose options go before those of others.
    """
    command = commands.commands.get(name or "")
    known = _WORDS | dict(_options(commands)) | (dict(_options(command)) if command else {})
    return _PARAMETER.sub(lambda found: known.get(found[1], found[0]), text)


def as_command(commands: click.Group) -> Callable[[Call], str]:
    """Return a function that writes a call as it is typed."""

    def write(call: Call) -> str:
        name = _COMMANDS.get(call.function, call.function)
        options = dict(_options(_find(commands, name)))
        words = ["dmlray", name]
        for parameter, value in call.arguments.items():
            option = options[parameter]
            if isinstance(value, bool):
                words += [option] if value else []
                continue
            for each in [value] if isinstance(value, str) else value:
                words += [option, typed(each)] if option.startswith("-") else [typed(each)]
        return " ".join(words)

    return write


def typed(path: str) -> str:
    """Write a path as one types it in a shell."""
    return shlex.quote(f"./{path}" if path.startswith("-") else path)


def _find(commands: click.Group, name: str) -> click.Command:
    found: click.Command = commands
    for word in name.split():
        assert isinstance(found, click.Group)
        found = found.commands[word]
    return found


def _options(command: click.Command) -> Iterator[tuple[str, str]]:
    """Parameter -> option or argument of a command, or of all below a group."""
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _options(below)
        return
    for parameter in command.params:
        name = parameter.name or ""
        if isinstance(parameter, click.Option):
            yield name, parameter.opts[0]
        else:
            yield name, (parameter.metavar or name.upper()).strip("[].")
