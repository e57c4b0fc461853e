"""What leaves for a terminal: nothing raw, nothing cut, and one sentence where it cannot leave."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest
from click.testing import CliRunner, Result

from dmlray.cli import main
from dmlray.cli.output import echo
from tests.toy_data import draw_images

EVIL = "\x1b]0;title\x07\x9b2J\u202e[red]x"
HARD = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def assert_clean(result: Result) -> None:
    assert all(line.isprintable() for line in result.output.split("\n"))
    assert "Traceback" not in result.output
    assert r"\x1b]0;title\x07" in result.output


@pytest.mark.parametrize(
    "words",
    [
        ["show", f"{EVIL}.yaml"],
        ["show", "experiments/dreml_demo.yaml", f"method.{EVIL}=1"],
        ["show", "experiments/dreml_demo.yaml", f"data.root={EVIL}"],
        ["show", "experiments/dreml_demo.yaml", EVIL],
        ["show", "key.yaml"],
        ["evaluate", EVIL],
        ["train", "x.yaml", "--out", f"s3://{EVIL}"],
        ["data", "verify", EVIL],
        ["data", "verify", "folder", "--root", EVIL],
        ["data", "verify", "folder", "--root", "images"],
        ["data", "verify", "csv", "--root", "list.csv"],
        ["data", EVIL],
        [EVIL],
        ["methods", EVIL],
        [f"--{EVIL}"],
        ["repeat", "--repeats", EVIL],
    ],
)
def test_names_of_strangers_are_shown_escaped(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key.yaml").write_text('method: {name: dreml}\n"\\e]0;title\\a": 1\n')
    (tmp_path / "list.csv").write_text(f"path,label\n{EVIL}.png,a\nb.png,b\nc.png,b\n")
    draw_images(tmp_path / "images", 4, 2)
    (tmp_path / "images" / "class00" / f"{EVIL}.png").write_bytes(b"no image")
    assert_clean(run(*words))


def test_a_warning_of_a_log_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    run("--version")
    logging.getLogger("dmlray.test").propagate = False  # pytest's own handler would take it
    logging.getLogger("dmlray.test").warning("of %s", EVIL)
    assert capsys.readouterr().err == "of \\x1b]0;title\\x07\\x9b2J\\u202e[red]x\n"


@pytest.mark.parametrize("columns", [80, 50, 40, 20])
@pytest.mark.parametrize(
    "words", [["methods"], ["data", "list"], ["show", "experiments/dreml_demo.yaml"]]
)
def test_lists_are_broken_between_words(
    words: list[str], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(*words).output.split()
    monkeypatch.setenv("COLUMNS", str(columns))
    output = run(*words).output
    assert output.split() == whole
    assert all(len(line) <= columns or len(line.split()) == 1 for line in output.splitlines())


def _end(words: list[str], stream: TextIO, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setattr(sys, "stdout", stream)
    with pytest.raises(SystemExit) as end:
        main(words)
    stream.close()  # flushes, as the interpreter does when it ends
    return end.value.code


@HARD
@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--help"],
        ["train", "--help"],
        ["methods"],
        ["data", "list"],
        ["show", "experiments/dreml_demo.yaml"],
    ],
)
def test_a_full_output_is_one_sentence(
    words: list[str],
    unbuffered: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stream = os.fdopen(os.open("/dev/full", os.O_WRONLY), "w")
    stream.reconfigure(write_through=unbuffered)
    assert _end(words, stream, monkeypatch) == 1
    assert capsys.readouterr().err == "standard output: No space left on device\n"


def test_a_closed_pipe_ends_in_silence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    assert _end(["methods"], os.fdopen(writing, "w"), monkeypatch) == 1
    assert capsys.readouterr().err == ""


@HARD
def test_an_interpreter_with_full_output_ends_without_a_traceback() -> None:
    with open("/dev/full", "w") as full:
        words = [sys.executable, "-m", "dmlray", "--help"]
        ended = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)


def test_letters_that_the_terminal_has_not_are_escaped(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    stream = os.fdopen(file, "w", encoding="latin-1")
    words = ["show", "experiments/dreml_demo.yaml", "data.root=/日"]
    assert _end(words, stream, monkeypatch) in (0, None)
    assert r"/\u65e5" in (tmp_path / "out").read_text()


def test_one_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    echo("a\nb")
    assert capsys.readouterr().out == "a\\nb\n"
