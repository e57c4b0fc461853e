"""Local paths given by users, with `~` for a home folder."""

import os
import re
from pathlib import Path
from typing import Any

from dmlray.errors import ConfigError

# `Path` turns s3://x into s3:/x. At least two letters: C:/ is a drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(given: str | Path) -> Path:
    """Expand `~` and `~user` of a path.

    Raises:
        ValueError: If it is empty, an address such as s3://bucket, or an unknown user's.
    """
    text = str(given)
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path. Allowed: a path")
    refuse_address(text)
    path = os.path.expanduser(text)
    if path.startswith("~"):
        user = text.partition("/")[0]
        raise ValueError(
            f"{text!r}: {user} is not a user here. Allowed: ./{text} for that very name"
        )
    return Path(path)


def path_of(parameter: str, given: Any) -> Path:
    """Return a path that was given as `parameter`, with `~` expanded.

    Raises:
        ConfigError: If it is none.
    """
    try:
        return local_path(given)
    except ValueError as error:
        raise ConfigError(f"`{parameter}`", [str(error)]) from None


def refuse_address(given: str | Path) -> None:
    """Refuse an address, which libraries would take for a folder named `s3:`.

    Raises:
        ValueError: If it is an address such as s3://bucket.
    """
    if _ADDRESS.match(str(given)):
        raise ValueError(
            f"{str(given)!r} is an address, not a path. "
            "Allowed: a path on this machine, where a remote storage can be mounted"
        )
