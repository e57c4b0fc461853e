"""Paths as people give them: of this machine's file systems, with `~` for a home."""

import os
import re
from pathlib import Path

# `Path` makes s3:/x of s3://x. Two letters at least: C:/ is a drive.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def local_path(given: str | Path) -> Path:
    """The path that was given, with `~` and `~user` expanded.

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
        raise ValueError(f"{text!r}: {user} is no user here. Allowed: ./{text} for that very name")
    return Path(path)


def refuse_address(given: str | Path) -> None:
    """Refuse what libraries would take for a folder of the name `s3:`.

    Raises:
        ValueError: If it is an address such as s3://bucket.
    """
    if _ADDRESS.match(str(given)):
        raise ValueError(
            f"{str(given)!r} is an address, not a path. "
            "Allowed: a path on this machine, where a remote storage can be mounted"
        )
