"""What is not a cluster of this user's is refused within seconds, each for its own reason."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dmlray.cluster import join
from dmlray.cluster.address import Address
from dmlray.cluster.join import joined, read_token
from dmlray.errors import ConfigError, ResourceError

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
    """Something that listens on a port, and says what it is given to say."""
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
        (b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", b""),  # settings of HTTP/2, and no word more
    ],
    ids=["silent", "ssh", "http", "bytes", "http2"],
)
def test_a_service_that_is_not_ray_is_named_so(greeting: bytes, answer: bytes) -> None:
    with (
        service(greeting, answer) as address,
        pytest.raises(ResourceError) as caught,
        joined(address),
    ):
        pass
    assert f"what answers at {address.text} is not Ray" in str(caught.value)


@pytest.mark.parametrize("text", ["127.0.0.1:9", "[::1]:9", "no.such.host.invalid:6379"])
def test_where_nothing_listens_is_named_so(text: str) -> None:
    with pytest.raises(ResourceError, match="no Ray cluster answers at"), joined(Address("", text)):
        pass


def test_a_token_is_taken_from_where_ray_takes_it(
    stranger: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / ".ray" / "auth_token", "home")
    assert read_token() == "home"
    stranger.setenv("RAY_AUTH_TOKEN_PATH", str(write(tmp_path / "named", "named")))
    assert read_token() == "named"
    stranger.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert read_token() == TOKEN


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610, 0o602])
def test_a_token_that_others_can_open_is_refused_with_what_mends_it(
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
def test_a_token_that_is_none_is_refused_with_where_it_belongs(
    tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        write(tmp_path / ".ray" / "auth_token", "").write_bytes(content)
    with pytest.raises(ConfigError, match=r"auth_token: .* in a file that RAY_AUTH_TOKEN_PATH"):
        read_token()


def test_a_token_that_is_turned_off_is_refused(stranger: pytest.MonkeyPatch) -> None:
    stranger.setenv("RAY_AUTH_MODE", "disabled")
    with pytest.raises(ConfigError, match=r"RAY_AUTH_MODE: 'disabled' .* Allowed: token"):
        read_token()


def write(path: Path, text: str, mode: int = 0o600) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path
