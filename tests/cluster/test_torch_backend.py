"""No process group for one worker, and for several on one machine nothing beyond loopback."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch.multiprocessing import get_context, spawn

from dmlray.cluster.torch_backend import ProcessGroup
from tests.cluster.group_workers import meet


def test_one_worker_joins_nothing() -> None:
    """Whatever else the workers of a run can be asked is missing here."""
    lonely = SimpleNamespace(get_workers=lambda: ["worker"])
    ProcessGroup().backend_cls().on_start(lonely, ProcessGroup())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("host", "listening"),
    [
        ("127.0.0.1", [["127.0.0.1"], ["127.0.0.1"]]),  # the store is a file
        ("127.0.0.2", [["127.0.0.1", "127.0.0.2"], ["127.0.0.1"]]),  # as across machines
    ],
)
def test_workers_meet_where_only_they_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, listening: list[list[str]]
) -> None:
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    if host != "127.0.0.1":
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # what the user says goes first
    spawn(meet, (host, get_context("spawn").SimpleQueue(), tmp_path), nprocs=2)
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found == [[3, addresses] for addresses in listening]
    assert not list(tmp_path.glob("*dml-*"))
