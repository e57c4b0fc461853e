"""Every command that writes a run: its folder is checked first, claimed last, and never lost."""

import errno
import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from dmlray.api import averages, begin, ensembles, runs
from dmlray.api.begin import Run, open_run
from dmlray.cli import main
from dmlray.cluster.reporters import ToTensorBoard
from dmlray.errors import (
    ConfigError,
    DiskFull,
    DmlrayError,
    Interrupted,
    ResourceError,
    StorageError,
)
from dmlray.learn.job import job
from dmlray.learn.training import Place, load_dataset
from dmlray.plans.files import read_experiment
from dmlray.plans.folder import RunFolder
from dmlray.plans.merge import Merge
from tests.api.conftest import EXPERIMENT, words, write_plan
from tests.api.test_run_lock import another_process
from tests.toys import SIDE, toy_words

FORK = multiprocessing.get_context("fork")
TRAINS = ("train", "tune", "cv", "repeat", "ensemble")
ALL = (*TRAINS, "merge", "demo")


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert "Traceback" not in result.output
    return result


def new_run(folder: RunFolder) -> AbstractContextManager[Run]:
    return open_run(folder, "dmlray train --resume", resumed=False)


def nothing_trains(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """What follows the opening of a run fails with `error`."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(runs.training, "train", fail)
    monkeypatch.setattr(runs.searching, "search", fail)
    monkeypatch.setattr(averages.members, "train_members", fail)
    monkeypatch.setattr(runs, "merge_members", fail)
    monkeypatch.setattr(runs, "score_members", fail)
    monkeypatch.setattr(ensembles.merging, "merge", fail)


def below_a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file" / "run"


def too_long(folder: Path) -> Path:
    return folder / ("n" * 300)


def too_deep(folder: Path) -> Path:
    return Path("a" * 200, *["b" * 200] * 20)


def a_file(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def a_dangling_link(folder: Path) -> Path:
    (folder / "link").symlink_to("nowhere")
    return folder / "link"


def below_a_dangling_link(folder: Path) -> Path:
    return a_dangling_link(folder) / "run"


def links_in_a_circle(folder: Path) -> Path:
    (folder / "a").symlink_to("b")
    (folder / "b").symlink_to("a")
    return folder / "a" / "run"


def below_proc(folder: Path) -> Path:
    return Path("/proc/run")


def something_else(folder: Path) -> Path:
    (folder / "else").mkdir()
    (folder / "else" / "mine.txt").write_text("precious")
    return folder / "else"


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize(
    "where",
    [below_a_file, too_long, too_deep, a_file, a_dangling_link, links_in_a_circle, below_proc,
     something_else, below_a_dangling_link],
)  # fmt: skip
def test_a_folder_that_cannot_be_used_is_refused_before_anything_slow(
    where: Callable[[Path], Path],
    kind: str,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if where is something_else and kind == "demo":
        pytest.skip("a demo goes on where it was")
    out = where(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(begin, "preflight", lambda *_: pytest.fail("decodes images"))
    monkeypatch.setattr(runs, "session", lambda *_: pytest.fail("starts Ray"))
    result = run(*words(kind, images), "--out", str(out))
    assert result.exit_code == 2, result.output
    last = result.output.splitlines()[-1]
    assert "Allowed: " in last and RunFolder(out).path.name[-20:] in last
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("kind", ALL)
def test_a_folder_that_may_not_be_written_is_refused(
    kind: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    result = run(*words(kind, images), "--out", "closed/run")
    assert result.exit_code == 2 and "closed/run: cannot be made" in result.output


@pytest.mark.parametrize("kind", TRAINS)
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_left_behind_when_ray_does_not_start(
    kind: str, there: bool, images: Path, tmp_path: Path
) -> None:
    if there:
        Path("deep/run").mkdir(parents=True)
    result = run(*words(kind, images), "--out", "deep/run", "--address", "127.0.0.1:1")
    assert result.exit_code == 2 and "127.0.0.1:1" in result.output, result.output
    assert Path("deep").exists() == there
    assert not there or not any(Path("deep/run").iterdir())


@pytest.mark.parametrize("kind", TRAINS)
def test_nothing_is_left_behind_when_the_machine_is_too_small(
    kind: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(*_: Any) -> None:
        raise ResourceError("too small")

    monkeypatch.setattr(runs.training, "resources_of", too_small)
    monkeypatch.setattr(runs.searching, "resources_of", too_small)
    monkeypatch.setattr(averages, "share_of", too_small)
    monkeypatch.setattr(ensembles, "share_of", too_small)
    result = run(*words(kind, images), "--out", "deep/run")
    assert (result.exit_code, Path("deep").exists()) == (2, False), result.output


def full_disk(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_replace(name: str, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The disk refuses to take the file `name`, whatever it is written by."""
    replace = os.replace

    def refuse(source: Any, target: Any, **keywords: Any) -> None:
        if Path(target).name == name:
            raise OSError(number, os.strerror(number))
        replace(source, target, **keywords)

    monkeypatch.setattr(os, "replace", refuse)


PLANS = {"train": "experiment", "tune": "search", "cv": "cross_validation"}


@pytest.mark.parametrize("kind", TRAINS)
@pytest.mark.parametrize("file", ["plan", "environment.json"])
def test_nothing_is_left_behind_when_the_disk_is_full_from_the_start(
    kind: str, file: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"{PLANS.get(kind, kind)}.yaml" if file == "plan" else file
    failing_replace(name, monkeypatch, errno.ENOSPC)
    result = run(*words(kind, images), "--out", "deep/run")
    assert result.exit_code == 1, result.output
    assert result.output.splitlines()[-1].endswith(f"{name}: the disk is full: make room")
    assert not Path("deep").exists()


@pytest.mark.parametrize("kind", TRAINS)
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: make room. "),
        (OSError(errno.EDQUOT, "Quota", "run/x"), "run/x: the disk is full: make room. "),
        (OSError(errno.EROFS, "Read-only file system", "run/x"), "run/x: Read-only file system. "),
        (OSError(errno.EIO, "Input/output error", "run/x"), "run/x: Input/output error. "),
        (DiskFull("the disk is full: make room"), "the disk is full: make room. "),
        (Interrupted(15), "interrupted. "),
        (KeyboardInterrupt(), "interrupted. "),
    ],
)
def test_what_a_disk_refuses_is_one_sentence_with_the_command_to_go_on(
    kind: str,
    error: BaseException,
    said: str,
    images: Path,
    no_ray: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nothing_trains(monkeypatch, error)
    result = run(*words(kind, images), "--out", "my run")
    last = result.output.splitlines()[-1]
    assert last == f"{said}Go on with: dmlray {kind} --resume 'my run'"
    assert result.exit_code == getattr(error, "exit_status", 130 if "inter" in said else 1)
    assert not Path("my run/lock.json").exists()
    again = run(kind, "--resume", "my run")  # and it may
    assert again.output.splitlines()[-1] == last


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


def test_of_two_new_runs_at_the_same_time_one_is_refused(images: Path) -> None:
    plan = read_experiment(EXPERIMENT, toy_words(images)).experiment
    dataset = load_dataset(plan)
    all_checked, begun = FORK.Barrier(4), FORK.Queue()

    def begin_one() -> None:
        folder = RunFolder(Path("deep/run"))
        try:
            write = lambda: folder.plan("experiment").write_text("plan")  # noqa: E731
            with open_run(folder, "dmlray train --resume", write, resumed=False) as opened:
                all_checked.wait()
                opened.begin(dataset)
                begun.put("begun")
                time.sleep(600)
        except ConfigError as error:
            begun.put(str(error))

    processes = [FORK.Process(target=begin_one) for _ in range(4)]
    for process in processes:
        process.start()
    results = [begun.get(timeout=60) for _ in processes]
    for process in processes:
        process.kill()
        process.join()
    assert results.count("begun") == 1
    assert all("is being trained by" in said for said in results if said != "begun"), results
    assert Path("deep/run/experiment.yaml").exists()


def test_a_claim_that_was_killed_is_taken_for_nothing(images: Path) -> None:
    folder = RunFolder(Path("run"))
    refused = pytest.raises(ConfigError, match="is being trained by")
    with another_process(folder), refused, new_run(folder) as opened:
        opened.begin()
    with new_run(folder) as opened:
        opened.begin()
    assert not any(folder.path.iterdir())


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
        assert said in result.output and "or begin a new run" in result.output
    assert Path("run/environment.json").read_text() == record
    image.write_bytes(before)
    nothing_trains(monkeypatch, Interrupted(15))
    assert run(kind, "--resume", "run").exit_code == 143


@pytest.fixture
def finished(images: Path) -> list[str]:
    """Two finished runs."""
    plan = read_experiment(EXPERIMENT, [*toy_words(images, 1), "backbone.pooling=avg"]).experiment
    job(plan, RunFolder(Path("one")), lambda epoch: None, Place(torch.device("cpu")))
    shutil.copytree("one", "other")
    return ["one", "other"]


FILES = ("merge.yaml", "curve.json", "curve.png", "report.html", "scores.json", "events")


def test_a_disk_that_is_full_in_any_write_of_a_merge(
    finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FILES:
        with monkeypatch.context() as patch:
            if name == "events":
                patch.setattr("tensorboardX.event_file_writer.EventsWriter.flush", full_disk)
            else:
                failing_replace(name, patch, errno.ENOSPC)
            result = run("merge", *finished, "--out", "merged")
            assert result.exit_code == 1
            last = result.output.splitlines()[-1]
            assert "the disk is full: make room" in last
            assert name == "events" or f"/{name}: " in last
            begun = name != "merge.yaml"
            assert last.endswith("Go on with: dmlray merge --resume merged") == begun
            assert Path("merged").exists() == begun
        if begun:
            assert run("merge", "--resume", "merged").exit_code == 0
            assert not Path("merged/lock.json").exists()
            shutil.rmtree("merged")


@pytest.mark.parametrize("name", ["embeddings.npy", "one_train.npy"])
def test_a_disk_that_is_full_while_embeddings_are_written(
    name: str, finished: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = name if name == "embeddings.npy" else f"{str(tmp_path)[1:].replace('/', '_')}_{name}"
    write = Path.write_bytes

    def refuse(path: Path, content: Any) -> int:
        return full_disk() if name in path.name else write(path, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    result = run("merge", *finished, "--pca", "3", "--out", "merged")
    said = f"{name}: the disk is full: make room. Go on with: dmlray merge --resume merged"
    assert (result.exit_code, result.output.splitlines()[-1].endswith(said)) == (1, True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """One MB, in a file system of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a file system")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leave: int) -> None:
    """Leave so many bytes."""
    free = shutil.disk_usage(disk).free
    (disk / "fill").write_bytes(bytes(max(0, free - leave)))


@pytest.mark.parametrize("leave", [0, 4096, 16384, 40960])
def test_a_merge_on_a_real_disk_that_fills_up(
    leave: int, finished: list[str], small_disk: Path
) -> None:
    fill(small_disk, leave)
    result = run("merge", *finished, "--out", "disk/merged")
    assert result.exit_code == 1
    assert "the disk is full: make room" in result.output.splitlines()[-1]
    (small_disk / "fill").unlink()
    again = ["--resume", "disk/merged"] if Path("disk/merged").exists() else [*finished, "--out"]
    assert run("merge", *again, *([] if again[0] == "--resume" else ["disk/merged"])).exit_code == 0


@pytest.mark.parametrize("leave", [0, 4096])
def test_a_training_on_a_real_disk_that_fills_up(
    leave: int, images: Path, small_disk: Path
) -> None:
    plan = read_experiment(EXPERIMENT, toy_words(images, 1)).experiment
    (small_disk / "cache").mkdir()
    fill(small_disk, leave)
    full = pytest.raises(DiskFull, match="the disk is full: make room")
    with full, new_run(RunFolder(small_disk / "run")) as opened:
        opened.begin()
        job(plan, opened.folder, lambda epoch: None, Place(torch.device("cpu")))


def test_a_cache_on_a_real_disk_that_is_full(
    images: Path, small_disk: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLRAY_CACHE", str(small_disk))
    monkeypatch.setattr("dmlray.data.cache._check_space", lambda folder, size: None)
    fill(small_disk, 8192)
    result = run(*words("train", images), "--out", "run")
    assert result.exit_code == 1 and not Path("run").exists()
    assert "the disk is full: make room" in result.output.splitlines()[-1]


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
        opened.begin()
        place = part(opened.folder)
        for _ in range(2):  # Ray starts a worker again
            with pytest.raises(OSError, match="No such file"):
                job(plan, place, move, Place(torch.device("cpu")))
            with pytest.raises(OSError, match="No such file"):
                ToTensorBoard(place)
        Path("run/.ray/tune").mkdir(parents=True)  # as Ray does
    assert not Path("run").exists()
    assert Path("moved/lock.json").exists()


def test_a_merge_into_a_folder_that_is_moved_ends_with_a_sentence(
    finished: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    merged = ensembles.merging.merge

    def move(plan: Merge, folder: RunFolder, *rest: Any) -> Any:
        scores = merged(plan, folder, *rest)
        folder.path.rename("moved")
        return scores

    monkeypatch.setattr(ensembles.merging, "merge", move)
    result = run("merge", *finished, "--out", "merged")
    assert (result.exit_code, Path("merged").exists()) == (1, False)
    assert result.output.splitlines()[-1].startswith("merged: the run folder is gone")


def test_the_outermost_command_is_the_one_to_type(tmp_path: Path) -> None:
    outer, inner = RunFolder(tmp_path / "outer"), RunFolder(tmp_path / "outer" / "inner")
    full = pytest.raises(StorageError, match=r"full: make room\. Go on with: dmlray demo --out")
    with full, open_run(outer, "dmlray demo --out", resumed=False) as demo:
        demo.begin()
        with new_run(inner) as train:
            train.begin()
            raise OSError(errno.ENOSPC, "full")


@pytest.mark.parametrize("error", [DmlrayError("wrong"), ValueError("unforeseen")])
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, new_run(RunFolder(tmp_path / "run")) as opened:
        opened.begin()
        raise error
    assert caught.value is error and not (tmp_path / "run" / "lock.json").exists()
