"""Find or start Ray, and leave it cleanly whatever happens."""

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import ray

from dmlray.cluster.resources import Cluster, living
from dmlray.errors import ConfigError, Interrupted, ResourceError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # a report waits for the next check
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",  # an actor that asked for no GPU sees none
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # dmlray writes its own
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would return as if all were done
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial reports its reason instead
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # one sentence for each instead; 1 shows where it was
    "TUNE_WARN_THRESHOLD_S": "60",
}

_ANSWER = 5.0  # seconds that a cluster has to answer


@contextmanager
def session(address: str | None = None) -> Iterator[Cluster]:
    """Join the cluster at `address` or RAY_ADDRESS, or start Ray here; yield what it has.

    Raises:
        ResourceError: If the cluster cannot be reached.
        Interrupted: From the block, in which it is a KeyboardInterrupt, on SIGINT or SIGTERM.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    ours = not ray.is_initialized()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    came: list[int] = []
    started = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        if started:  # half a Ray could be neither used nor ended
            raise KeyboardInterrupt  # the only exception of a handler that Ray's waiting lets out

    try:
        for number in before:
            signal.signal(number, interrupt)
        if ours:
            _connect(address or os.environ.get("RAY_ADDRESS") or None)
            signal.signal(signal.SIGTERM, interrupt)  # Ray has put its own in that place
        started = True
        if came:
            raise KeyboardInterrupt
        yield living()
    except KeyboardInterrupt:
        raise Interrupted(came[0] if came else signal.SIGINT) from None
    finally:
        for number in before:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not break the shutdown
        if ours:
            ray.shutdown()
        for number, handler in before.items():
            signal.signal(number, handler)


def _connect(address: str | None) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)
    if address and address != "auto":
        _must_answer(address)
    if address and "RAY_AUTH_MODE" not in os.environ and _has_token():
        os.environ["RAY_AUTH_MODE"] = "token"  # an explicit address does not turn it on by itself
    try:
        if address:
            with _asked_briefly():
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:  # "local": Ray would else join whatever cluster this machine knows of, dead or alive
            ray.init("local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except SystemExit:  # Ray's own answer to a SIGTERM while it starts
        signal.alarm(0)  # of its C++ side: an abort in three seconds
        raise Interrupted(signal.SIGTERM) from None
    except Exception as error:
        where = f"at {address}" if address else "on this machine"
        raise ResourceError(f"cannot use Ray {where}: {_reason(error, address)}") from error


@contextmanager
def _asked_briefly() -> Iterator[None]:
    """A cluster that does not let us in is asked five times, not twenty; our own may take long."""
    name = "RAY_gcs_server_port_wait_time_s"
    said = name in os.environ
    os.environ.setdefault(name, f"{_ANSWER:g}")
    try:
        yield
    finally:
        if not said:
            del os.environ[name]


def _reason(error: Exception, address: str | None) -> str:
    """Why Ray did not take us, and what to do; its own words seldom say it."""
    text = " ".join(str(error).split())
    if "Version mismatch" in text:
        return f"{text} Allowed: the same Ray and Python on every host"
    if not address:
        return text
    if not _has_token():
        return (
            "it does not let this machine in. No token was found here (RAY_AUTH_TOKEN, "
            "RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token): copy the head's ~/.ray/auth_token"
        )
    if "RAY_AUTH_MODE" in os.environ and os.environ["RAY_AUTH_MODE"] != "token":
        return "it does not let this machine in. Set RAY_AUTH_MODE=token: there is a token here"
    return (
        "it does not let this machine in. The token here is not the head's, or the head was "
        "started without RAY_AUTH_MODE=token: both need the same token and mode"
    )


def _must_answer(address: str) -> None:
    """Ray itself would ask a silent address for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        problem = f"{address!r} is not allowed. Allowed: HOST:PORT of a `ray start --head`, or auto"
        raise ConfigError("--address", [problem])
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except OSError as error:
        raise ResourceError(
            f"no Ray cluster answers at {address}: {error}. Start one there with "
            f"`ray start --head --port={port}`, or leave the address out to start Ray here"
        ) from None


def _has_token() -> bool:
    return bool(
        os.environ.get("RAY_AUTH_TOKEN")
        or os.environ.get("RAY_AUTH_TOKEN_PATH")
        or (Path.home() / ".ray" / "auth_token").is_file()
    )
