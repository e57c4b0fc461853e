import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dmlray import download
from dmlray.backbones.download import fetched
from dmlray.errors import DataError

CONTENT = bytes(range(256)) * 1000
NAME = f"net-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"


class Publisher(BaseHTTPRequestHandler):
    """Serves the file whole, or by address: truncated, changed or not at all."""

    requests = 0
    released = threading.Event()

    def do_GET(self) -> None:
        type(self).requests += 1
        way = self.path.split("/")[1]
        if way == "silent":
            self.released.wait(20)
            return
        self.send_response(404 if way == "gone" else 200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        body = {"cut": CONTENT[:1000], "changed": CONTENT[::-1]}.get(way, CONTENT)
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[str]:
    Publisher.requests, Publisher.released = 0, threading.Event()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Publisher)
    threading.Thread(target=server.serve_forever, args=(0.02,)).start()
    yield f"http://127.0.0.1:{server.server_port}"
    Publisher.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return tmp_path / "hub" / "checkpoints"


def weights_in(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def test_a_file_is_fetched_once(
    publisher: str, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert fetched("net", f"{publisher}/whole/{NAME}").read_bytes() == CONTENT
    assert Publisher.requests == 1
    assert weights_in(cache) == [NAME]
    assert capfd.readouterr() == ("", "")  # no progress bar in a log


@pytest.mark.parametrize(
    ("way", "reason", "left"),
    [
        ("cut", "cut 5 times, after 1000 of 256000 bytes", [f"{NAME}.partial"]),
        ("changed", r"not sha256:\w{8}; removed", []),
        ("gone", "HTTP status 404", []),
    ],
)
def test_what_does_not_arrive_whole_is_no_file_of_weights(
    way: str, reason: str, left: list[str], publisher: str, cache: Path
) -> None:
    address = f"{publisher}/{way}/{NAME}"
    with pytest.raises(DataError, match=rf"^backbone net: .* {address} \(.*{reason}") as caught:
        fetched("net", address)
    assert "\n" not in str(caught.value)
    assert "backbone.weights=none" in str(caught.value)
    assert weights_in(cache) == left


def test_an_address_that_never_answers_is_given_up(
    publisher: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    with pytest.raises(DataError, match="timed out"):
        fetched("net", f"{publisher}/silent/{NAME}")
    assert weights_in(cache) == []


def test_an_interrupted_download_is_no_file_of_weights(
    publisher: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    address = f"{publisher}/whole/{NAME}"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("rich.progress.Progress.update", interrupted)
        fetched("net", address)
    assert weights_in(cache) == [f"{NAME}.partial"]
    assert fetched("net", address).read_bytes() == CONTENT
    assert weights_in(cache) == [NAME]


def test_a_damaged_file_in_the_cache_is_fetched_anew(publisher: str, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT[:-1])
    assert fetched("net", f"{publisher}/whole/{NAME}").read_bytes() == CONTENT


def test_a_cache_that_may_only_be_read_is_enough(cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / NAME).write_bytes(CONTENT)
    cache.chmod(0o500)
    try:
        assert fetched("net", f"http://nowhere.invalid/{NAME}") == cache / NAME
        assert weights_in(cache) == [NAME] == sorted(path.name for path in cache.iterdir())
    finally:
        cache.chmod(0o700)


def test_of_several_workers_one_fetches(publisher: str, cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetched("net", f"{publisher}/whole/{NAME}"), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert Publisher.requests == 1
    assert weights_in(cache) == [NAME]


def test_a_name_without_a_hash_is_taken_as_it_comes(publisher: str, cache: Path) -> None:
    assert fetched("net", f"{publisher}/whole/vit.16-600e.pth.tar").read_bytes() == CONTENT
