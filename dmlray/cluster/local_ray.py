"""A private Ray on this machine that other users cannot access and that ends with its driver."""

import os
import resource
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import ray
from ray._private import utils as ray_utils
from ray._private.node import Node

from dmlray.cluster import reaper
from dmlray.cluster.private_folder import is_private, private_folder
from dmlray.cluster.ray_environment import replaced, signals_left_alone, variables
from dmlray.errors import ResourceError

_SOCKET = 107 if sys.platform == "linux" else 103  # bytes in the path of a socket
_BELOW = len("/dml-01234567/r/session_2026-01-31_23-59-59_123456_4194304/sockets/plasma_store")
LONGEST_BASE = _SOCKET - _BELOW
_FILES = 512  # open files per process; Ray's processes open 60, and some for each worker
_LAST = "/tmp"  # last choice of a base folder


@contextmanager
def started() -> Iterator[None]:
    """Start Ray in a folder of mode 0700 with a new token; end all of its processes afterwards.

    Raises:
        ResourceError: If it cannot start.
    """
    check_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    tempfile.gettempdir()  # cache the present folder, as this process may outlive this Ray
    with (
        folder_for_ray() as folder,
        _reaped(folder),
        variables(
            {
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": secrets.token_hex(32),
                "TMPDIR": str(folder),  # so that files of killed workers are removed with it
                "RAY_enable_metrics_collection": "0",  # metrics are served without a token
                "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # no node is reclaimed
                # Ray Train needs processes with other variables than those that would start early.
                "RAY_prestart_worker_first_driver": "0",
            }
        ),
    ):
        try:
            _init(folder / "r")  # Ray opens its folder to all users, so put it into a private one
            yield
        finally:
            ray.shutdown()


def _init(folder: Path) -> None:
    try:
        with signals_left_alone(), _no_agent(), few_processes(), _no_hangup():
            ray.init(
                "local",  # else Ray would join any cluster on this machine
                num_cpus=max(1, int(ray_utils.get_num_cpus())),  # Ray rounds half a core down to 0
                include_dashboard=False,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(folder),
            )
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ResourceError(f"Ray does not start on this machine: {reason}") from error


def check_open_files(limit: int) -> None:
    """Check the hard limit of open files, to which Ray raises the soft one.

    Raises:
        ResourceError: If it is too low.
    """
    if limit != resource.RLIM_INFINITY and limit < _FILES:
        raise ResourceError(
            f"ulimit -n: {limit} open files are too few for Ray. Allowed: at least {_FILES}"
        )


@contextmanager
def folder_for_ray() -> Iterator[Path]:
    """Create a private folder whose path is short enough for Ray's sockets.

    Raises:
        ResourceError: If no base folder is suitable.
    """
    named = [os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR"), _LAST]
    bases = list(dict.fromkeys(Path(path) for path in named if path))
    problems = {base: _problem(base) for base in bases}
    suitable = [base for base, problem in problems.items() if problem is None]
    if not suitable:
        tried = "; ".join(f"{base} {problem}" for base, problem in problems.items())
        raise ResourceError(
            f"no folder is suitable for Ray's sockets: {tried}. Set RAY_TMPDIR to your own folder "
            f"with a path of at most {LONGEST_BASE} bytes"
        )
    # In a base folder open to all, as /tmp in a container may be, others could replace it.
    with private_folder(next(filter(is_private, suitable), suitable[0])) as folder:
        yield folder


def _problem(base: Path) -> str | None:
    """Return why Ray cannot keep its files in the folder `base`, None if it can."""
    if not base.is_dir():
        return "is not a folder"
    length = len(os.fsencode(base.resolve()))
    if length > LONGEST_BASE:
        return f"has a path of {length} bytes"
    return None if os.access(base, os.W_OK | os.X_OK) else "cannot be written"


@contextmanager
def _reaped(folder: Path) -> Iterator[None]:
    """Start a process that ends Ray and removes `folder` once the block or this process ends."""
    script = [sys.executable, "-I", reaper.__file__, str(folder), str(os.getpid())]
    with subprocess.Popen(script, stdin=subprocess.PIPE, start_new_session=True):
        yield  # the end of the block closes the pipe and waits


def _no_agent() -> AbstractContextManager[None]:
    """Pretend that `ray[default]` is not installed, so that Ray's dashboard agent opens no port.

    The agent accepts jobs, and dmlray does not use it.
    """
    missing = ImportError("not wanted")
    return replaced(ray_utils, "get_dashboard_dependency_error", lambda: missing)


@contextmanager
def few_processes() -> Iterator[None]:
    """Do not start Ray's autoscaler, log monitor and dashboard, which have nothing to do here.

    They take 4 s of CPU time to start, and the log monitor 4 % of a core from then on.
    """
    with ExitStack() as stack:
        for name in ("start_monitor", "start_log_monitor", "start_api_server"):
            stack.enter_context(replaced(Node, name, lambda self, **options: None))
        yield


@contextmanager
def _no_hangup() -> Iterator[None]:
    """Block SIGHUP in the block, and for good in the processes that it starts.

    A closed terminal sends SIGHUP to all processes: Ray would end before the driver could stop it
    and print the command that resumes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
