"""Parse the address of a cluster, and resolve `auto`."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ray._private.services import psutil  # a dependency of Ray

from dmlray.cluster.private_folder import NAME
from dmlray.errors import ConfigError, ResourceError

_OPTION, _VARIABLE = "`address`", "RAY_ADDRESS"
_HOST_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s\[\]:/@]+):([0-9]{1,5})", re.ASCII)
_ALLOWED = "HOST:PORT of a `ray start --head` (such as 10.0.0.1:6379), auto or local"
_LOCAL, _AUTO = "local", "auto"


@dataclass(frozen=True)
class Address:
    """HOST:PORT of a cluster's head, and its source (option or variable)."""

    source: str
    text: str

    @property
    def host(self) -> str:
        """The host, without the brackets of IPv6."""
        return self.text.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port."""
        return int(self.text.rpartition(":")[2])


@dataclass(frozen=True)
class Raylet:
    """A node of a cluster that runs on this machine."""

    node: str
    head: str
    owner: int
    folder: Path  # temporary folder of Ray


def read_address(option: str | None) -> Address | None:
    """Return the cluster that `option` or else RAY_ADDRESS names; None to start Ray here.

    Raises:
        ConfigError: If it is not an address; names the option or variable.
        ResourceError: If `auto` finds no cluster, or several.
    """
    variable = os.environ.get(_VARIABLE)
    if option is not None and not (option == _AUTO and variable):
        source, text = _OPTION, option
    elif variable:
        source, text = _VARIABLE, variable
    else:
        return None
    if text == _LOCAL:
        return None
    if text == _AUTO:
        return Address(source, _running(source))
    match = _HOST_PORT.fullmatch(text)
    if not match or not 1 <= int(match[2]) <= 65535:
        raise ConfigError(source, [_problem(text)])
    return Address(source, text)


def raylets() -> Iterator[Raylet]:
    """Yield the nodes that run on this machine, of every cluster and user."""
    for process in psutil.process_iter(["cmdline", "uids"]):
        words = process.info["cmdline"] or []
        if words and Path(words[0]).name == "raylet":
            options = dict(word[2:].split("=", 1) for word in words[1:] if "=" in word)
            if "node_id" in options and process.info["uids"]:
                yield Raylet(
                    options["node_id"],
                    options.get("gcs-address", ""),
                    process.info["uids"].real,
                    Path(options.get("temp_dir", "")),
                )


def _problem(text: str) -> str:
    if "://" in text:
        scheme = text.split("://")[0]
        return f"{text!r}: {scheme}:// is not supported. Allowed: {_ALLOWED}"
    return f"{text!r} is not allowed. Allowed: {_ALLOWED}"


def _running(source: str) -> str:
    """Return the only cluster that this user or root started here with `ray start`.

    Not one of another user, who would get the token and run this user's code, and not the private
    one of another command, which ends with that command.
    """
    heads = sorted(
        {
            raylet.head
            for raylet in raylets()
            if raylet.owner in (0, os.getuid()) and not raylet.folder.parent.match(NAME)
        }
    )
    if len(heads) == 1:
        return heads[0]
    if heads:
        problem = f"nodes of {len(heads)} clusters run on this machine ({', '.join(heads)})"
        raise ResourceError(f"{source}: auto: {problem}. Allowed: one of these addresses")
    raise ResourceError(
        f"{source}: auto: no cluster that you or root started runs on this machine. Start one "
        "with `ray start --head`, give its HOST:PORT, or local to start Ray for this command"
    )
