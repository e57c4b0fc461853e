"""Anything but a cluster of this user is refused within seconds, with its reason."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.core.generated.gcs_service_pb2 import CheckAliveReply, GetAllNodeInfoReply
from ray.core.generated.gcs_service_pb2_grpc import (
    NodeInfoGcsServiceServicer,
    add_NodeInfoGcsServiceServicer_to_server,
)

from dmlray.cluster import join
from dmlray.cluster.address import Address, Raylet
from dmlray.cluster.join import joined, read_token
from dmlray.errors import ConfigError, DmlrayError, ResourceError

TOKEN = 64 * "7"


@pytest.fixture(autouse=True)
def stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(join, "_ANSWER", 1.0)
    return monkeypatch


@contextlib.contextmanager
def service(greeting: bytes, answer: bytes) -> Iterator[Address]:
    """A server on a port that sends given replies."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = listening.accept()
                    client.sendall(greeting)
                    if answer:
                        client.recv(1024)
                        client.sendall(answer)
                        client.close()
                    else:
                        clients.append(client)

        clients: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        yield Address("--address", f"127.0.0.1:{listening.getsockname()[1]}")
        listening.shutdown(socket.SHUT_RDWR)
        for client in clients:
            client.close()


@pytest.mark.parametrize(
    ("greeting", "answer"),
    [
        (b"", b""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", b""),
        (b"", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
        (b"\x00" * 64, b"\xff" * 64),
        (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", b""),  # settings of HTTP/2, and nothing else
    ],
    ids=["silent", "ssh", "http", "bytes", "http2"],
)
def test_a_service_that_is_not_ray_is_refused(greeting: bytes, answer: bytes) -> None:
    with (
        service(greeting, answer) as address,
        pytest.raises(ResourceError) as caught,
        joined(address),
    ):
        pass
    assert f"the server at {address.text} is not Ray" in str(caught.value)


@pytest.mark.parametrize("text", ["127.0.0.1:9", "[::1]:9", "no.such.host.invalid:6379"])
def test_an_address_without_a_service_is_refused(text: str) -> None:
    with pytest.raises(ResourceError, match="no Ray cluster answers at"), joined(Address("", text)):
        pass


def test_the_token_has_the_sources_of_ray(stranger: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write(tmp_path / ".ray" / "auth_token", "home")
    assert read_token() == "home"
    stranger.setenv("RAY_AUTH_TOKEN_PATH", str(write(tmp_path / "named", "named")))
    assert read_token() == "named"
    stranger.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert read_token() == TOKEN


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610, 0o602])
def test_a_token_that_others_can_open_is_refused_with_the_remedy(
    stranger: pytest.MonkeyPatch, tmp_path: Path, named: bool, mode: int
) -> None:
    path = write(tmp_path / ("named" if named else ".ray/auth_token"), TOKEN, mode)
    if named:
        stranger.setenv("RAY_AUTH_TOKEN_PATH", str(path))
    with pytest.raises(ConfigError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        read_token()
    path.chmod(0o600)
    assert read_token() == TOKEN


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe"])
def test_a_missing_token_is_refused_with_its_place(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        write(tmp_path / ".ray" / "auth_token", "").write_bytes(content)
    with pytest.raises(ConfigError, match=r"auth_token: .* in a file that RAY_AUTH_TOKEN_PATH"):
        read_token()


def test_a_token_that_is_disabled_is_refused(stranger: pytest.MonkeyPatch) -> None:
    stranger.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE: 'disabled' .* Allowed: token"):
        read_token()


class Head(NodeInfoGcsServiceServicer):  # type: ignore[misc]
    """A cluster's head with one node, that accepts TOKEN, or everyone if it is `open`."""

    def __init__(self, node: Address, is_open: bool = False) -> None:
        self._node, self._open = node, is_open

    def CheckAlive(  # noqa: N802  # gRPC names it
        self, request: object, context: grpc.ServicerContext
    ) -> CheckAliveReply:
        self._let_in(context)
        return CheckAliveReply()

    def GetAllNodeInfo(  # noqa: N802  # gRPC names it
        self, request: object, context: grpc.ServicerContext
    ) -> GetAllNodeInfoReply:
        self._let_in(context)
        node = GcsNodeInfo(node_id=b"node", node_manager_address=self._node.host)
        node.node_manager_port = self._node.port
        return GetAllNodeInfoReply(node_info_list=[node])

    def _let_in(self, context: grpc.ServicerContext) -> None:
        shown = dict(context.invocation_metadata()).get("authorization")
        if not self._open and shown != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")


@contextlib.contextmanager
def serving(node: Address | None = None, is_open: bool = False) -> Iterator[Address]:
    """A head that replies; it is its own node if none is given."""
    server = grpc.server(ThreadPoolExecutor(2))
    address = Address("--address", f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    add_NodeInfoGcsServiceServicer_to_server(Head(node or address, is_open), server)
    server.start()
    yield address
    server.stop(None).wait()


def refusal(address: Address) -> str:
    with pytest.raises(DmlrayError) as caught, joined(address):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def joins(stranger: pytest.MonkeyPatch) -> list[dict[str, str | None]]:
    """Record the environment of each `ray.init` and of its workers; the head's node is here."""
    told: list[dict[str, str | None]] = []
    names = ("RAY_AUTH_MODE", "RAY_gcs_server_port_wait_time_s")

    def init(runtime_env: dict[str, dict[str, str]], **options: object) -> None:
        told.append({name: os.environ.get(name) for name in names} | runtime_env["env_vars"])

    stranger.setattr("ray.init", init)
    here = Raylet(b"node".hex(), "", os.getuid(), Path("/tmp/ray"))
    stranger.setattr(join, "raylets", lambda: iter([here]))
    return told


@pytest.mark.parametrize("is_open", [True, False])
def test_a_token_is_used_if_the_cluster_requires_one(
    stranger: pytest.MonkeyPatch, joins: list[dict[str, str | None]], is_open: bool
) -> None:
    stranger.setenv("RAY_AUTH_TOKEN", TOKEN)
    before = dict(os.environ)
    with serving(is_open=is_open) as address, joined(address):
        pass
    assert [join["RAY_AUTH_MODE"] for join in joins] == [None if is_open else "token"]
    assert dict(os.environ) == before


def test_workers_of_a_joined_cluster_see_no_gpu_but_their_share(
    stranger: pytest.MonkeyPatch, joins: list[dict[str, str | None]]
) -> None:
    """Their raylet was started without dmlray's environment."""
    with serving(is_open=True) as address, joined(address):
        pass
    assert [join["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] for join in joins] == ["1"]


@pytest.mark.parametrize(
    ("variables", "is_open", "reason"),
    [
        ({"RAY_AUTH_TOKEN": "abc"}, False, "its token differs from that of the head"),
        ({}, False, "auth_token: cannot be read: No such file or directory. The cluster requires"),
        ({"RAY_AUTH_MODE": "disabled"}, False, "RAY_AUTH_MODE: 'disabled' is not allowed"),
        ({"RAY_AUTH_MODE": "token"}, True, "has no token, which RAY_AUTH_MODE=token here requires"),
    ],
)
def test_a_cluster_that_rejects_this_user_is_refused_with_the_reason(
    stranger: pytest.MonkeyPatch,
    joins: list[dict[str, str | None]],
    variables: dict[str, str],
    is_open: bool,
    reason: str,
) -> None:
    for name, value in variables.items():
        stranger.setenv(name, value)
    with serving(is_open=is_open) as address:
        assert reason in refusal(address)
    assert joins == []


def test_a_machine_that_is_not_a_node_of_the_cluster_is_refused(
    stranger: pytest.MonkeyPatch, joins: list[dict[str, str | None]]
) -> None:
    stranger.setattr(join, "raylets", lambda: iter([]))
    with serving(is_open=True) as address:
        assert f"ray start --address={address.text}`" in refusal(address)
    assert joins == []


def test_a_node_that_does_not_reply_is_refused(joins: list[dict[str, str | None]]) -> None:
    with service(b"", b"") as silent, serving(silent, is_open=True) as address:
        assert f"node on this machine ({silent.text}) does not answer" in refusal(address)
    assert joins == []


def test_an_error_of_ray_is_one_line(
    stranger: pytest.MonkeyPatch, joins: list[dict[str, str | None]]
) -> None:
    def refuse(**options: object) -> None:
        raise RuntimeError("Version mismatch: Ray: 2.1\nPython: 3.9")

    stranger.setattr("ray.init", refuse)
    with serving(is_open=True) as address:
        assert "Ray: 2.1 Python: 3.9 Allowed: the same Ray and Python" in refusal(address)


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path
