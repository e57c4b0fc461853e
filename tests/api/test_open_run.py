"""A resumed run is written by one process, has its first images, and is not made a second time."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from dmlray.api.run_setup import claim
from dmlray.cluster.reporters import EpochLogger
from dmlray.errors import Call, DmlrayError, Interrupted, StorageError
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.plans.merge import Merge
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from dmlray.results import merge_runs
from tests.api.commands import (
    EXPERIMENT,
    TRAINS,
    another_process,
    new_run,
    nothing_trains,
    run,
    words,
    write_plan,
)
from tests.toy_data import SIDE, toy_words


@pytest.mark.parametrize("kind", TRAINS)
def test_a_run_that_another_process_writes_is_refused(
    kind: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_trains(monkeypatch, AssertionError("trains"))
    folder = RunFolder(Path("run"))
    write_plan(kind, folder, images)
    with another_process(folder) as process:
        before = {path: path.read_bytes() for path in folder.path.iterdir()}
        result = run(kind, "--resume", "run")
        assert result.exit_code == 2
        assert f"run: is being trained by process {process.pid} on " in result.output
        assert {path: path.read_bytes() for path in folder.path.iterdir()} == before
        result = run("evaluate", "run")
        expected = kind in ("cv", "repeat", "ensemble")  # these write scores
        assert (f"trained by process {process.pid}" in result.output) == expected


@pytest.mark.parametrize("kind", TRAINS)
def test_a_folder_that_holds_files_is_never_written(
    kind: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_trains(monkeypatch, AssertionError("trains"))
    kept = Path("run/notes.txt")
    kept.parent.mkdir()
    kept.write_text("precious")
    result = run(*words(kind, images), "--out", "run")
    assert result.exit_code == 2
    assert "run: exists. Allowed: a new folder (--out), or go on with --resume" in result.output
    assert [*kept.parent.iterdir()] == [kept]
    assert kept.read_text() == "precious"


@pytest.mark.parametrize("kind", TRAINS)
def test_a_run_goes_on_with_the_images_that_it_began_with(
    kind: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_trains(monkeypatch, Interrupted(15))
    assert run(*words(kind, images), "--out", "run").exit_code == 143
    record = Path("run/environment.json").read_text()
    nothing_trains(monkeypatch, AssertionError("trains"))
    image = images / "class03" / "1.png"
    before = image.read_bytes()
    Image.new("RGB", (SIDE, SIDE), "red").save(image)
    for command in ([kind, "--resume", "run"], ["evaluate", "run"]):
        result = run(*command)
        if command[0] == "evaluate" and kind == "tune":
            continue  # there is nothing to evaluate
        assert result.exit_code == 2, result.output
        said = "the images changed since the run began (fingerprint "
        assert said in result.output
        assert "or a new run" in result.output
    assert Path("run/environment.json").read_text() == record
    image.write_bytes(before)
    nothing_trains(monkeypatch, Interrupted(15))
    assert run(kind, "--resume", "run").exit_code == 143


@pytest.mark.parametrize(
    "part", [lambda run: run, lambda run: run.member(3), lambda run: run.trial(1)]
)
def test_a_moved_run_is_not_made_anew_by_what_still_writes_it(
    part: Callable[[RunFolder], RunFolder], images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = read_experiment(EXPERIMENT, toy_words(images, 2)).experiment

    def move(epoch: Any) -> None:
        if not Path("moved").exists():
            Path("run").rename("moved")

    gone = pytest.raises(StorageError, match="run: the run folder is gone")
    with gone, new_run(RunFolder(Path("run"))) as opened:
        opened.start()
        place = part(opened.folder)
        for _ in range(2):  # Ray starts a worker again
            with pytest.raises(OSError, match="No such file"):
                run_training(plan, place, move, Runtime(torch.device("cpu")))
            with pytest.raises(OSError, match="No such file"):
                EpochLogger(plan, place)
        Path("run/.ray/tune").mkdir(parents=True)  # as Ray does
    assert not Path("run").exists()
    assert Path("moved/lock.json").exists()


def test_a_merge_into_a_folder_that_is_moved_ends_with_a_sentence(
    finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = merge_runs.merge

    def move(plan: Merge, folder: RunFolder, *rest: Any) -> Any:
        scores = merged(plan, folder, *rest)
        folder.path.rename("moved")
        return scores

    monkeypatch.setattr(merge_runs, "merge", move)
    result = run("merge", *finished, "--out", "merged")
    assert (result.exit_code, Path("merged").exists()) == (1, False)
    assert result.output.splitlines()[-1].startswith("merged: the run folder is gone")


def test_the_outermost_command_is_the_one_to_type(tmp_path: Path) -> None:
    outer, inner = RunFolder(tmp_path / "outer"), RunFolder(tmp_path / "outer" / "inner")
    full = pytest.raises(StorageError, match=r"free some space\. Resume with: dmlray\.demo\(out=")
    with full, claim(outer, Call("demo", {"out": "outer"}), resumed=False) as demo:
        demo.start()
        with new_run(inner) as train:
            train.start()
            raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("error", [DmlrayError("wrong"), ValueError("unforeseen")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, new_run(RunFolder(tmp_path / "run")) as opened:
        opened.start()
        raise error
    assert caught.value is error
    assert not (tmp_path / "run" / "lock.json").exists()
