from pathlib import Path

from dmlray.learn import journal


def test_a_line_cut_short_by_a_kill_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    journal.append(path, {"epoch": 1, "loss": 2.0})
    with path.open("a") as file:
        file.write('{"epoch": 2, "lo')
    assert journal.read(path) == [{"epoch": 1, "loss": 2.0}]


def test_rewinding_forgets_what_a_resumed_run_will_say_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"
    journal.rewind(path, 0)
    for epoch in (1, 2, 3):
        journal.append(path, {"epoch": epoch})
    journal.rewind(path, 2)
    assert [line["epoch"] for line in journal.read(path)] == [1, 2]


def test_a_run_that_never_began_has_no_lines(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "none.jsonl") == []
