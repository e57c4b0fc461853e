from pathlib import Path

import pytest

from dmlray.errors import DataError
from dmlray.learn import metrics_log
from tests.learn.run_mutants import GENERIC


def test_a_line_cut_short_by_a_kill_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics_log.append(path, {"epoch": 1, "loss": 2.0})
    with path.open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert metrics_log.read(path) == [{"epoch": 1, "loss": 2.0}]


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"", b"3", b"[]", b'{"loss": 1}', b"\x00" * 9])
def test_a_damaged_line_does_not_affect_others(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + damage + b'\n{"epoch": 3}\n')
    assert [line["epoch"] for line in metrics_log.read(path)] == [1, 3]


def test_rewinding_removes_the_lines_after_the_epoch(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics_log.rewind(path, 0)
    for epoch in (1, 2, 3):
        metrics_log.append(path, {"epoch": epoch})
    metrics_log.rewind(path, 2)
    assert [line["epoch"] for line in metrics_log.read(path)] == [1, 2]


def test_a_run_that_never_began_has_no_lines(tmp_path: Path) -> None:
    assert metrics_log.read(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize(
    "line",
    [b'{"epoch": true}', b'{"epoch": 0}', b'{"epoch": 1, "loss": NaN}',
     b'{"epoch": 1, "loss": "x"}', b'{"epoch": 1, "loss": 1e999}', b'{"epoch": 1, "epoch": 2}',
     b'{"epoch": 1, "loss": [1]}',
     b'{"epoch": 1, "loss": ' + b"9" * 400 + b"}", b"[" * 100_000],
    ids=lambda line: line[:30].decode(),
)  # fmt: skip
def test_a_line_of_other_content_is_not_read(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(line + b'\n{"epoch": 2, "loss": 1}\n')
    assert metrics_log.read(tmp_path / "metrics.jsonl") == [{"epoch": 2, "loss": 1}]


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a device", "a link to itself"])
def test_metrics_that_are_not_a_file_are_refused(tmp_path: Path, kind: str) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b"")
    GENERIC[kind](tmp_path / "metrics.jsonl")
    with pytest.raises(DataError, match=r"metrics\.jsonl: cannot be read"):
        metrics_log.read(tmp_path / "metrics.jsonl")
