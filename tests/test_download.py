"""A server that resumes, does not, lies, hangs up or is not there."""

import contextlib
import hashlib
import random
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dmlray import download
from dmlray.download import DownloadError, Remote, fetch

CONTENT = random.Random(0).randbytes(500_000)
Disk = namedtuple("Disk", "total used free")


@dataclass
class Server:
    """What it answers, and the Range of each request it was asked."""

    content: bytes = CONTENT
    resumes: bool = True
    cut_after: int | None = None  # bytes of one answer, then the connection ends
    status: int = 200
    says_length: bool = True
    ranges: list[str | None] = field(default_factory=list)
    port: int = 0

    @property
    def remote(self) -> Remote:
        checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
        return Remote(f"http://127.0.0.1:{self.port}/moved", checksum, len(CONTENT))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/file")
                self.end_headers()
                return
            wanted = self.headers["Range"]
            state.ranges.append(wanted)
            start = int(wanted[6:-1]) if wanted and state.resumes else 0
            self.send_response(206 if start and state.status == 200 else state.status)
            if state.says_length:
                self.send_header("Content-Length", str(len(state.content) - start))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client need not read on
                self.wfile.write(state.content[start:][: state.cut_after])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        state.port = running.server_port
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "birds.tgz"


def partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_fetches_follows_and_checks(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    target = tmp_path / "new" / "data" / "birds.tgz"
    fetch(server.remote, target, lambda done, size: steps.append((done, size)))
    assert target.read_bytes() == CONTENT
    assert visible(target.parent) == ["birds.tgz"]
    assert steps == sorted(steps)
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_a_file_that_is_there_is_not_fetched_again(server: Server, target: Path) -> None:
    target.write_bytes(CONTENT)
    fetch(server.remote, target)
    assert server.ranges == []


def test_a_damaged_file_is_fetched_anew(server: Server, target: Path) -> None:
    target.write_bytes(CONTENT[:-1])
    fetch(server.remote, target)
    assert target.read_bytes() == CONTENT


def test_of_several_processes_one_fetches(server: Server, target: Path) -> None:
    with ThreadPoolExecutor(4) as pool:  # FileLock objects of threads exclude each other too
        list(pool.map(lambda _: fetch(server.remote, target), range(4)))
    assert server.ranges == [None]
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_resumes_where_a_killed_process_stopped(
    server: Server, target: Path, size: int | None
) -> None:
    partial(target).write_bytes(CONTENT[:123_456])
    fetch(replace(server.remote, size=size), target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == ["bytes=123456-"]
    assert visible(target.parent) == ["birds.tgz"]


def test_without_a_checksum_nothing_is_resumed(server: Server, target: Path) -> None:
    partial(target).write_bytes(b"of an older version")
    fetch(Remote(server.remote.url), target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None]


def test_server_that_cannot_resume_begins_again(server: Server, target: Path) -> None:
    server.resumes = False
    partial(target).write_bytes(b"old" * 1000)
    fetch(server.remote, target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_whole_partial_needs_no_server(target: Path, extra: bytes) -> None:
    partial(target).write_bytes(CONTENT + extra)
    remote = replace(Server().remote, url="http://127.0.0.1:1/")
    if extra:
        with pytest.raises(DownloadError, match=r"^what came is not md5:\w+; removed$"):
            fetch(remote, target)
        assert visible(target.parent) == []
    else:
        fetch(remote, target)
        assert target.read_bytes() == CONTENT


def test_whole_partial_of_unknown_size_is_taken(server: Server, target: Path) -> None:
    partial(target).write_bytes(CONTENT)
    server.status = 416  # what servers answer when nothing is left
    fetch(replace(server.remote, size=None), target)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_cut_connections_are_resumed(server: Server, target: Path, size: int | None) -> None:
    server.cut_after = 200_000
    fetch(replace(server.remote, size=size), target)
    assert target.read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=200000-", "bytes=400000-"]


def test_connection_that_is_always_cut_keeps_what_came(server: Server, target: Path) -> None:
    server.cut_after = 50_000
    with pytest.raises(DownloadError, match=r"cut 5 times, after 250000 of 500000 bytes; they are"):
        fetch(server.remote, target)
    assert visible(target.parent) == ["birds.tgz.partial"]
    fetch(server.remote, target)
    assert visible(target.parent) == ["birds.tgz"]


@pytest.mark.parametrize("checksum", [True, False])
def test_a_server_that_names_no_length(server: Server, target: Path, checksum: bool) -> None:
    server.says_length = False
    remote = replace(server.remote, size=None)
    if checksum:
        fetch(remote, target)
        assert target.read_bytes() == CONTENT
        return
    with pytest.raises(DownloadError, match=r"^the length of the file is unknown$"):
        fetch(Remote(remote.url), target)
    assert visible(target.parent) == []


@pytest.mark.parametrize("digits", [8, 32])
def test_wrong_hash_removes_the_file(server: Server, target: Path, digits: int) -> None:
    server.content = CONTENT[::-1]
    checksum = str(server.remote.checksum)[: len("md5:") + digits]
    with pytest.raises(DownloadError, match=rf"^what came is not {checksum}; removed$"):
        fetch(replace(server.remote, checksum=checksum), target)
    assert visible(target.parent) == []


def test_page_in_place_of_the_file_does_not_touch_what_was_fetched(
    server: Server, target: Path
) -> None:
    server.content, server.resumes = b"<html>Log in to this network</html>", False
    partial(target).write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match=r"^it offers 35 bytes where 500000 are due$"):
        fetch(server.remote, target)
    assert partial(target).read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("status", [404, 403, 416, 503])
def test_refusal_names_the_status(server: Server, target: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DownloadError, match=rf"^HTTP status {status}$"):
        fetch(server.remote, target)
    assert visible(target.parent) == []


def test_closed_port_is_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as bound:  # bound and not listening: no other process gets the port
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}/"
        with pytest.raises(DownloadError, match="refused"):
            fetch(Remote(url), target)


def test_machine_without_a_network_is_named(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DownloadError, match="Name or service not known"):
        fetch(Server().remote, target)


def test_silent_server_is_given_up(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DownloadError, match="timed out"),
    ):
        fetch(Remote(f"http://127.0.0.1:{silent.getsockname()[1]}/"), target)


def test_answer_that_is_no_http_is_refused(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(10_000)
                connection.sendall(b"220 ready\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(DownloadError, match="220 ready"):
            fetch(Remote(f"http://127.0.0.1:{listening.getsockname()[1]}/"), target)
        thread.join()


def test_small_disk_is_seen_before(
    server: Server, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(10**6, 0, 10**5))
    with pytest.raises(DownloadError, match=r"are due and the disk has .* free some space"):
        fetch(server.remote, target)
    assert visible(target.parent) == []


def test_folder_that_is_a_file_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DownloadError, match=r"cannot be kept in .*data: File exists"):
        fetch(server.remote, tmp_path / "data" / "birds.tgz")
