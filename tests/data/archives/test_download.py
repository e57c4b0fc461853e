"""A server that resumes, does not, lies, hangs up or is not there."""

import contextlib
import hashlib
import random
import socket
import threading
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dmlray.data.archives import download
from dmlray.data.archives.download import Source, fetch
from dmlray.errors import DataError

CONTENT = random.Random(0).randbytes(500_000)
ADVICE = (
    r"Put birds\.tgz from there or elsewhere into .* dmlray data prepare cub --from .*birds\.tgz$"
)
Disk = namedtuple("Disk", "total used free")


@dataclass
class Server:
    """What it answers, and the Range of each request it was asked."""

    content: bytes = CONTENT
    resumes: bool = True
    cut_after: int | None = None  # bytes of one answer, then the connection ends
    status: int = 200
    ranges: list[str | None] = field(default_factory=list)
    port: int = 0

    @property
    def source(self) -> Source:
        checksum = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
        url = f"http://127.0.0.1:{self.port}/moved"
        return Source("cub", "birds.tgz", url, len(CONTENT), checksum)


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


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_fetches_follows_and_checks(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    folder = tmp_path / "new" / "data"
    path = fetch(server.source, folder, lambda done, size: steps.append((done, size)))
    assert path == folder / "birds.tgz"
    assert path.read_bytes() == CONTENT
    assert visible(folder) == ["birds.tgz"]
    assert steps == sorted(steps)
    assert steps[-1] == (len(CONTENT), len(CONTENT))


def test_file_that_is_there_is_checked_and_not_fetched_again(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "birds.tgz").write_bytes(CONTENT)
    assert fetch(server.source, tmp_path).read_bytes() == CONTENT
    (tmp_path / "birds.tgz").write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match=r"birds\.tgz: is not the official file .*Take it away"):
        fetch(server.source, tmp_path)
    assert (tmp_path / "birds.tgz").read_bytes() == CONTENT[:-1]  # it is the user's own
    assert server.ranges == []


def test_goes_on_where_a_killed_process_stopped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "birds.tgz.partial").write_bytes(CONTENT[:123_456])
    assert fetch(server.source, tmp_path).read_bytes() == CONTENT
    assert server.ranges == ["bytes=123456-"]
    assert visible(tmp_path) == ["birds.tgz"]


def test_server_that_cannot_resume_begins_again(server: Server, tmp_path: Path) -> None:
    server.resumes = False
    (tmp_path / "birds.tgz.partial").write_bytes(b"old" * 1000)
    assert fetch(server.source, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_whole_partial_needs_no_server(tmp_path: Path, extra: bytes) -> None:
    (tmp_path / "birds.tgz.partial").write_bytes(CONTENT + extra)
    source = replace(Server().source, url="http://127.0.0.1:1/")
    if extra:
        with pytest.raises(DataError, match=r"what came is not md5:\w+; removed"):
            fetch(source, tmp_path)
        assert visible(tmp_path) == []
    else:
        assert fetch(source, tmp_path).read_bytes() == CONTENT


def test_cut_connections_are_taken_up_again(server: Server, tmp_path: Path) -> None:
    server.cut_after = 200_000
    assert fetch(server.source, tmp_path).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=200000-", "bytes=400000-"]


def test_connection_that_is_always_cut_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.cut_after = 50_000
    with pytest.raises(DataError, match=r"cut 5 times, after 250000 of 500000 bytes\. They are"):
        fetch(server.source, tmp_path)
    assert visible(tmp_path) == ["birds.tgz.partial"]
    fetch(server.source, tmp_path)
    assert visible(tmp_path) == ["birds.tgz"]


def test_wrong_hash_removes_the_file(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[::-1]
    with pytest.raises(DataError, match=rf"what came is not md5:\w+; removed\)\. {ADVICE}"):
        fetch(server.source, tmp_path)
    assert visible(tmp_path) == []


def test_page_in_place_of_the_file_does_not_touch_what_was_fetched(
    server: Server, tmp_path: Path
) -> None:
    server.content, server.resumes = b"<html>Log in to this network</html>", False
    (tmp_path / "birds.tgz.partial").write_bytes(CONTENT[:1000])
    with pytest.raises(DataError, match=rf"offers 35 bytes where 500000 are due\)\. {ADVICE}"):
        fetch(server.source, tmp_path)
    assert (tmp_path / "birds.tgz.partial").read_bytes() == CONTENT[:1000]


@pytest.mark.parametrize("status", [404, 403, 416, 503])
def test_refusal_says_what_to_do(server: Server, tmp_path: Path, status: int) -> None:
    server.status = status
    with pytest.raises(DataError, match=rf"cannot be fetched \(HTTP status {status}\)\. {ADVICE}"):
        fetch(server.source, tmp_path)
    assert visible(tmp_path) == []


def test_closed_port_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as bound:  # bound and not listening: nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        source = replace(Server().source, url=f"http://127.0.0.1:{bound.getsockname()[1]}/")
        with pytest.raises(DataError, match=rf"refused.*\)\. {ADVICE}"):
            fetch(source, tmp_path)


def test_machine_without_a_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(DataError, match=rf"\(.*Name or service not known\)\. {ADVICE}"):
        fetch(Server().source, tmp_path)


def test_silent_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = replace(Server().source, url=f"http://127.0.0.1:{silent.getsockname()[1]}/")
        with pytest.raises(DataError, match=rf"timed out\)\. {ADVICE}"):
            fetch(source, tmp_path)


def test_answer_that_is_no_http_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as connection:
                connection.recv(10_000)
                connection.sendall(b"220 ready\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        source = replace(Server().source, url=f"http://127.0.0.1:{listening.getsockname()[1]}/")
        with pytest.raises(DataError, match=ADVICE):
            fetch(source, tmp_path)
        thread.join()


def test_small_disk_is_seen_before(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: Disk(10**6, 0, 10**5))
    with pytest.raises(DataError, match=r"are to be fetched .* Make room"):
        fetch(server.source, tmp_path)
    assert server.ranges == []


def test_folder_that_is_a_file_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataError, match=r"data: birds\.tgz cannot be kept there: File exists"):
        fetch(server.source, tmp_path / "data")
