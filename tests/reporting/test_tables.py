import io
from dataclasses import replace

import pytest
from rich.console import Console

from dmlray.reporting.progress import Display
from dmlray.reporting.tables import print_table
from dmlray.scores import protocol_line
from tests.reporting.test_run_report import scores

ROWS = [("zero-shot (no training)", {"recall_at_1": 0.761, "r_precision": 1.0, "map_at_r": 0.287})]
ROWS += [("[red]trained\x1b[2J", {"recall_at_1": 0.893, "r_precision": 0.5, "map_at_r": 0.504})]


def printed(width: int) -> str:
    file = io.StringIO()
    print_table(ROWS, scores(dataset="[b]icons"), Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [120, 80, 50, 40, 20])
def test_no_name_and_no_number_is_cut(width: int) -> None:
    output = printed(width)
    assert "…" not in output
    assert "\x1b" not in output
    words = output.split()
    for word in ("76.1", "100.0", "28.7", "89.3", "50.0", "50.4", "R-Precision", "MAP@R"):
        assert any(word in found for found in words)
    assert r"[red]trained\x1b[2J" in output
    assert "[b]icons" in output


@pytest.mark.parametrize("width", [40, 20])
def test_a_narrow_terminal_has_one_name_and_value_in_a_line(width: int) -> None:
    lines = printed(width).splitlines()
    assert "  R-Precision 100.0" in lines
    assert "  MAP@R 50.4" in lines
    assert all(len(line) <= width or len(line.split()) == 1 for line in lines)


@pytest.mark.parametrize("width", [200, 80, 50, 40, 20, 9])
def test_progress_never_cuts_the_count(width: int) -> None:
    file = io.StringIO()
    with Display(Console(file=file, width=width, force_terminal=True)) as display:
        display.start("epochs of [red]trials with a long name\x1b]0;x\x07", 120)
        display.update(34, "map_at_r 0.5123, loss 2.345")
    assert "34/120" in file.getvalue()
    assert "\x1b]0" not in file.getvalue()
    if width >= 200:
        assert "[red]trials" in file.getvalue()
        assert "loss 2.345" in file.getvalue()


def test_what_is_said_is_one_line_without_markup() -> None:
    file = io.StringIO()
    Display(Console(file=file, width=20)).log("member [red]0[/red] :fire: \x1b[2J\n" + "x" * 30)
    assert file.getvalue() == "member [red]0[/red] :fire: \\x1b[2J\\n" + "x" * 30 + "\n"


def test_the_protocol_names_the_precision_where_the_run_recorded_it() -> None:
    found = scores(precision="bfloat16, embeddings in tf32")
    assert "; computed in bfloat16, embeddings in tf32; n = " in protocol_line(found)
    found = replace(found, computed_on="NVIDIA H200, CUDA 13.0, cuDNN 91300, driver 580.82")
    assert "in tf32 on NVIDIA H200, CUDA 13.0, cuDNN 91300, driver 580.82; n = " in protocol_line(
        found
    )
    assert "computed" not in protocol_line(scores())


def test_time_left_counts_from_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 s until the first of 5 steps, then 2 s for each: three steps are left, not 18 s."""
    clock = [100.0]
    monkeypatch.setattr("dmlray.reporting.progress.time.monotonic", lambda: clock[0])
    file = io.StringIO()
    display = Display(Console(file=file, width=80))
    display.start("epochs", 5)
    for done, now in enumerate((110.0, 112.1), start=1):
        clock[0] = now
        display.update(done)
    assert file.getvalue().splitlines() == [
        "epochs: 5 to do", "epochs: 1/5", "epochs: 2/5 (00:06 left)",
    ]  # fmt: skip


def test_a_long_first_step_gives_a_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("dmlray.reporting.progress.time.monotonic", lambda: clock[0])
    file = io.StringIO()
    display = Display(Console(file=file, width=80))
    display.start("epochs", 3)
    clock[0] = 3700.0
    display.update(1)
    assert file.getvalue().splitlines()[-1] == "epochs: 1/3 (2:00:00 left)"
