from pathlib import Path

import pytest

from dmlray.learn import journal


def test_a_line_cut_short_by_a_kill_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal.append(path, {"epoch": 1, "loss": 2.0})
    with path.open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert journal.read(path) == [{"epoch": 1, "loss": 2.0}]


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"", b"3", b"[]", b'{"loss": 1}', b"\x00" * 9])
def test_a_line_that_a_disk_broke_costs_no_other(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"epoch": 1}\n' + damage + b'\n{"epoch": 3}\n')
    assert [line["epoch"] for line in journal.read(path)] == [1, 3]


def test_rewinding_forgets_what_a_resumed_run_will_say_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    journal.rewind(path, 0)
    for epoch in (1, 2, 3):
        journal.append(path, {"epoch": epoch})
    journal.rewind(path, 2)
    assert [line["epoch"] for line in journal.read(path)] == [1, 2]


def test_a_run_that_never_began_has_no_lines(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none.jsonl") == []
