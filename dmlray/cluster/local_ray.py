"""A Ray of one's own on this machine, that no other user can use and that ends with its driver."""

import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import ray
from ray._private import utils as ray_utils

from dmlray.cluster import reaper
from dmlray.cluster.private_folder import is_private, private_folder
from dmlray.cluster.ray_environment import replaced, signals_left_alone, variables
from dmlray.errors import ResourceError

_SOCKET = 107 if sys.platform == "linux" else 103  # bytes in the path of a socket
_BELOW = len("/dml-01234567/r/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store")
LONGEST_BASE = _SOCKET - _BELOW
_FILES = 512  # that a process may open; Ray's own open 60 and some for each worker
_LAST = "/tmp"  # where Ray lies if no other folder serves


@contextmanager
def started() -> Iterator[None]:
    """Start Ray in a folder of mode 0700 and with a token of its own; end all of it afterwards.

    Raises:
        ResourceError: If it cannot start.
    """
    check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    tempfile.gettempdir()  # this process keeps the one that it has, for it may outlive this Ray
    with (
        folder_for_ray() as folder,
        _reaped(folder),
        variables(
            {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "TMPDIR": str(folder),  # what killed workers leave is removed with it
                "RAY_enable_metrics_collection": "0",  # they are given out without a token
                "AUTOSCALER_METRIC_PORT": "-1",  # as are these: no port
            }
        ),
    ):
        try:
            _init(folder / "r")  # Ray makes its folder accessible to all: one below a private one
            yield
        finally:
            ray.shutdown()


def _init(folder: Path) -> None:
    try:
        with signals_left_alone(), _no_agent(), _no_hangup():
            ray.init(
                "local",  # Ray would else join whatever cluster this machine knows of
                num_cpus=max(1, int(ray_utils.get_num_cpus())),  # half a core counts as none
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(folder),
            )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ResourceError(f"Ray does not start on this machine: {reason}") from error


def check_open_files(limit: int) -> None:
    """Ray raises the soft limit to the hard one, but not beyond.

    Raises:
        ResourceError: If that is too little.
    """
    if limit != resource.RLIM_INFINITY and limit < _FILES:
        raise ResourceError(
            f"ulimit -n: {limit} open files are too few for Ray. Allowed: at least {_FILES}"
        )


@contextmanager
def folder_for_ray() -> Iterator[Path]:
    """A private folder with a path that leaves room for the names of Ray's sockets.

    Raises:
        ResourceError: If there is no place for one.
    """
    named = [os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), _LAST]
    bases = list(dict.fromkeys(Path(path) for path in named if path))
    problems = {base: _problem(base) for base in bases}
    serving = [base for base, problem in problems.items() if problem is None]
    if not serving:
        tried = "; ".join(f"{base} {problem}" for base, problem in problems.items())
        raise ResourceError(
            f"no folder serves for Ray's sockets: {tried}. Set RAY_TMPDIR to a folder of yours "
            f"with a path of at most {LONGEST_BASE} bytes"
        )
    # In a folder that is open to all, as a container's /tmp may be, others could replace it.
    with private_folder(next(filter(is_private, serving), serving[0])) as folder:
        yield folder


def _problem(base: Path) -> str | None:
    """Why Ray cannot keep its files in the folder `base`, if so."""
    if not base.is_dir():
        return "is no folder"
    length = len(os.fsencode(base.resolve()))
    if length > LONGEST_BASE:
        return f"has a path of {length} bytes"
    return None if os.access(base, os.W_OK | os.X_OK) else "cannot be written"


@contextmanager
def _reaped(folder: Path) -> Iterator[None]:
    """Let a process of its own end Ray and remove `folder` once the block or this process ends."""
    script = [sys.executable, "-I", reaper.__file__, str(folder), str(os.getpid())]
    with subprocess.Popen(script, stdin=subprocess.PIPE, start_new_session=True):
        yield  # the end of the block closes the pipe and waits


def _no_agent() -> AbstractContextManager[None]:
    """Let `ray[default]` seem not to be installed: Ray's dashboard agent then opens no port.

    It takes jobs from whoever has the token, and nothing here asks it for anything.
    """
    missing = ImportError("not wanted")
    return replaced(ray_utils, "get_dashboard_dependency_error", lambda: missing)


@contextmanager
def _no_hangup() -> Iterator[None]:
    """Block SIGHUP meanwhile, in what is started for ever.

    A terminal that is closed sends it to all processes: Ray would be gone before the driver could
    end it and say how to go on.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
