"""Paths on the command line."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from dmlray.errors import ConfigError
from dmlray.local_paths import local_path


class LocalPath(click.ParamType):  # type: ignore[type-arg]  # no older click has one
    """A path of this machine; in `--out=~/runs` shells do not expand the home."""

    name = "path"

    def convert(
        self, value: str | Path, param: click.Parameter | None, context: click.Context | None
    ) -> Path:
        """Read the path as users write it."""
        option = param.opts[0] if isinstance(param, click.Option) else "command line"
        return read_path(option, value)


PATH = LocalPath()


def read_path(source: str, given: str | Path) -> Path:
    """The path that was given by `source`.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return local_path(given)
    except ValueError as error:
        raise ConfigError(source, [str(error)]) from None


def split_words(words: Sequence[str]) -> tuple[Path | None, list[str]]:
    """The file, if the first word is one, and the overrides; runs/lr=1/best.yaml is a file."""
    if not words:
        return None, []
    key, equals, _ = words[0].partition("=")
    if equals and "/" not in key and not os.path.isfile(words[0]):
        return None, list(words)
    return read_path("command line", words[0]), list(words[1:])
