"""Join a running Ray cluster, after checks of its address and this user's token."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import ray
from ray._common.tls_utils import load_certs_from_env
from ray.core.generated.gcs_service_pb2 import (
    CheckAliveRequest,
    GetAllNodeInfoReply,
    GetAllNodeInfoRequest,
)
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub

from dmlray.cluster.address import Address, raylets
from dmlray.cluster.ray_environment import WORKERS, signals_left_alone, variables
from dmlray.errors import ConfigError, ResourceError

_ANSWER = 5.0  # seconds to wait for a reply of a cluster
_MODE = "RAY_AUTH_MODE"
_TOKEN, _TOKEN_PATH = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_ALLOWED = (
    f"The cluster requires the token of its head: in {_TOKEN}, in a file that {_TOKEN_PATH} "
    "names, or in ~/.ray/auth_token"
)


@contextmanager
def joined(address: Address) -> Iterator[None]:
    """Join the cluster at `address`, and leave it afterwards.

    Without these checks Ray would retry a wrong address or a missing node for minutes.

    Raises:
        ConfigError: If this user's token is missing or unusable.
        ResourceError: If no cluster replies, or it does not accept this machine.
    """
    wait = {"RAY_gcs_server_port_wait_time_s": f"{_ANSWER:g}"}
    with variables(wait | _check_token(address)):
        try:
            _init(address.text)
            yield
        finally:
            ray.shutdown()


def _init(target: str) -> None:
    try:
        with signals_left_alone():
            ray.init(
                address=target,
                runtime_env={"env_vars": WORKERS},
                log_to_driver=False,
                logging_level="ERROR",
            )
    except Exception as error:
        text = _text(error)
        allowed = " Allowed: the same Ray and Python on every host" if "mismatch" in text else ""
        raise ResourceError(f"cannot join the Ray cluster at {target}: {text}{allowed}") from error


def _check_token(address: Address) -> dict[str, str]:
    """Check the cluster, this node and the token; return the environment that Ray needs."""
    _check_reachable(address)
    with _channel(address.text) as channel:
        service = NodeInfoGcsServiceStub(channel)
        open_to_all = _is_open(service, address.text)
        token = None if open_to_all else read_token()
        nodes = _nodes(service, address.text, token)
    alive = [node for node in nodes.node_info_list if node.state == node.ALIVE]
    local = {raylet.node for raylet in raylets()}
    here = [node for node in alive if node.node_id.hex() in local]
    if not here:
        raise ResourceError(
            f"this machine is not one of the {len(alive)} nodes of the cluster at {address.text}. "
            f"Start Ray here with `ray start --address={address.text}`, or work on one of them"
        )
    for node in here:
        _check_responsive(f"{node.node_manager_address}:{node.node_manager_port}")
    return {} if open_to_all else {_MODE: "token"}


def _check_reachable(address: Address) -> None:
    try:
        socket.create_connection((address.host, address.port), timeout=_ANSWER).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: not a valid host name
        raise ResourceError(
            f"no Ray cluster answers at {address.text}: {error}. Start one there with "
            f"`ray start --head --port={address.port}`, or omit the address to start Ray here"
        ) from None


def _check_responsive(node: str) -> None:
    """Check that a node replies: Ray would end this process after half a minute."""
    with _channel(node) as channel:
        try:
            grpc.channel_ready_future(channel).result(_ANSWER)
        except grpc.FutureTimeoutError:
            raise ResourceError(
                f"the cluster's node on this machine ({node}) does not answer. End it and start "
                "it again with `ray start`"
            ) from None


def _channel(target: str) -> grpc.Channel:
    """Open a connection like Ray's, but without the token, as the server may not be Ray."""
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        return grpc.insecure_channel(target, [("grpc.enable_http_proxy", 0)])
    chain, key, authority = load_certs_from_env()
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(authority, key, chain))


def _is_open(service: NodeInfoGcsServiceStub, target: str) -> bool:
    """Return whether the cluster requires no token.

    Raises:
        ResourceError: If the server is not a Ray cluster, or has no token but should.
    """
    try:
        service.CheckAlive(CheckAliveRequest(), timeout=_ANSWER)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            return False
        raise ResourceError(
            f"the server at {target} is not Ray, or not the head of a cluster. Allowed: "
            "HOST:PORT of a `ray start --head` (6379 by default), with the "
            "same RAY_USE_TLS as here"
        ) from None
    if os.environ.get(_MODE, "").lower() == "token":
        raise ResourceError(
            f"the cluster at {target} has no token, which {_MODE}=token here requires. Start all "
            f"of it with {_MODE}=token and one token"
        )
    return True


def _nodes(service: NodeInfoGcsServiceStub, target: str, token: str | None) -> GetAllNodeInfoReply:
    metadata = [("authorization", f"Bearer {token}")] if token else None
    try:
        return service.GetAllNodeInfo(GetAllNodeInfoRequest(), timeout=_ANSWER, metadata=metadata)
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.UNAUTHENTICATED:
            reason = f"{error.code().name}: {error.details()}"
            raise ResourceError(f"the cluster at {target} does not answer: {reason}") from None
        raise ResourceError(
            f"the cluster at {target} rejects this machine: its token differs from that of the "
            "head. Allowed: the same token on both"
        ) from None


def read_token() -> str:
    """Read this user's token for clusters.

    Raises:
        ConfigError: If there is none, other users can read it, or tokens are disabled.
    """
    if os.environ.get(_MODE, "token").lower() != "token":
        problem = f"{os.environ[_MODE]!r} is not allowed: the cluster requires a token"
        raise ConfigError(_MODE, [f"{problem}. Allowed: token"])
    if token := os.environ.get(_TOKEN, "").strip():
        return token
    path = Path(os.environ.get(_TOKEN_PATH) or Path.home() / ".ray" / "auth_token")
    try:
        mode, token = path.stat().st_mode, path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a token"
        raise ConfigError(str(path), [f"cannot be read: {reason}. {_ALLOWED}"]) from None
    if not token:
        raise ConfigError(str(path), [f"is empty. {_ALLOWED}"])
    if stat.S_IMODE(mode) & 0o077:
        problem = f"other users can open the file with your token (mode {stat.S_IMODE(mode):04o})"
        raise ConfigError(str(path), [f"{problem}. Fix it with: chmod 600 {path}"])
    return token


def _text(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
