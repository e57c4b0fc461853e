"""Files, paths and what --resume takes."""

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from dmlray.cli import main
from dmlray.cli.commands import SECTIONS
from dmlray.plans.ensemble import cross_validation, repeats
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import read_experiment, write_experiment

DEMO = Path("experiments/proxy_anchor_demo.yaml")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))


def refused(*words: str) -> str:
    before = set(Path().rglob("*"))
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.output.count("\n") == 1
    assert set(Path().rglob("*")) == before
    return result.output


@pytest.fixture
def runs() -> None:
    plan = read_experiment(DEMO).experiment
    for name in ("train", "tune", "cv", "repeat", "ensemble", "merge"):
        Path(name).mkdir()
    write_experiment(Path("train/experiment.yaml"), plan)
    Path("tune/search.yaml").write_text(f"experiment: {DEMO}\nspace: {{}}\n")
    cross_validation(plan).write(Path("cv/cross_validation.yaml"))
    repeats(plan, 2).write(Path("repeat/repeat.yaml"))
    repeats(plan, 2).write(Path("ensemble/ensemble.yaml"))
    Merge((Path("a"), Path("b"))).write(Path("merge/merge.yaml"))


@pytest.mark.parametrize(
    ("command", "given", "named"),
    [
        *((name, ["nothing.yaml"], "no {}") for name in ("train", "tune", "cv", "repeat")),
        *((name, ["seed=1"], "no KEY=VALUE") for name in ("train", "cv", "repeat")),
        *(
            (name, ["--out", "new"], "no --out")
            for name in ("train", "tune", "cv", "repeat", "ensemble", "merge")
        ),
        ("train", ["nothing.yaml", "seed=1"], "no EXPERIMENT and no KEY=VALUE"),
        ("repeat", ["--repeats", "5"], "no --repeats"),
        ("merge", ["a", "b"], "no RUN"),
        ("merge", ["--weights", "1,2"], "no --weights"),
        ("merge", ["--pca", "3"], "no --pca"),
        ("merge", ["--whiten"], "no --whiten"),
        ("merge", ["--greedy"], "no --greedy"),
    ],
)
def test_what_would_be_ignored_beside_resume_is_refused(
    runs: None, command: str, given: list[str], named: str
) -> None:
    named = named.format("SEARCH" if command == "tune" else "EXPERIMENT")
    said = refused(command, *given, "--resume", command)
    assert f"--resume: goes on with the plan in {command}; it takes {named}" in said


@pytest.mark.parametrize("address", ["s3://bucket/x", "gs://b/x", "http://h/x", "hdfs://h/x"])
@pytest.mark.parametrize(
    "words",
    [
        *(
            [name, str(DEMO), "--out"]
            for name in ("train", "tune", "cv", "repeat")
        ),
        *([name, "--resume"] for name in ("train", "tune", "cv", "repeat", "ensemble", "merge")),
        ["ensemble", "--method", "dreml", "--out"],
        ["ensemble", "--experiment"],
        ["train"],
        ["tune"],
        ["show"],
        ["plan"],
        ["evaluate"],
        ["merge"],
        ["merge", "a", "--out"],
        ["demo", "--out"],
        ["doctor", "--root"],
        ["doctor", "--out"],
        ["data", "verify", "folder", "--root"],
        ["data", "prepare", "cub", "--root"],
        ["data", "prepare", "cub", "--root", "x", "--from"],
    ],
)  # fmt: skip
def test_an_address_is_no_path(words: list[str], address: str) -> None:
    assert "is an address, not a path" in refused(*words, address)


def test_a_home_is_expanded_wherever_it_stands() -> None:
    assert "~no-such-user is not a user here" in refused(
        "train", str(DEMO), "--out=~no-such-user/x"
    )
    assert str(Path.home() / "no-such-run") not in Path.cwd().as_posix()
    said = refused("evaluate", "~/no-such-run")
    assert os.path.relpath(Path.home() / "no-such-run") in said


def test_a_file_in_a_folder_with_an_equals_sign_is_a_file() -> None:
    assert "runs/lr=1/x.yaml: no such file" in refused("train", "runs/lr=1/x.yaml")
    Path("lr=1.yaml").write_text("method: {name: no-such-method}\n")
    assert "lr=1.yaml: line 1  method.name: unknown" in refused("train", "lr=1.yaml")


@pytest.mark.parametrize("command", ["show", "plan", "train", "tune", "cv", "repeat"])
def test_a_file_must_be_a_regular_file(command: str) -> None:
    os.mkfifo("pipe.yaml")
    Path("folder.yaml").mkdir()
    Path("link.yaml").symlink_to("nothing")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind("socket.yaml")
    for name in ("pipe.yaml", "folder.yaml", "link.yaml", "socket.yaml", "/dev/zero", "/dev/null"):
        assert f"{name}: cannot be read: " in refused(command, name)
    listening.close()
    assert "File name too long" in refused(command, "x" * 300)


def test_help_lists_every_command_once() -> None:
    sections = [name for names in SECTIONS.values() for name in names]
    assert len(sections) == len(set(sections))
    assert set(main.commands) <= set(sections)
    lines = CliRunner().invoke(main, ["--help"]).output.splitlines()
    for name in main.commands:
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1, name
