"""A new run's folder is checked before anything slow, and claimed when nothing else can fail."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dmlray.api import averages, ensembles, run_setup, runs, searches
from dmlray.errors import ConfigError, ResourceError
from dmlray.learn.class_split import load_dataset
from dmlray.plans.resolve import read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.api.commands import ALL, EXPERIMENT, FORK, TRAINS, another_process, new_run, run, words
from tests.toy_data import toy_words


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
    monkeypatch.setattr(run_setup, "preflight", lambda *_: pytest.fail("decodes images"))
    for module in (runs, searches):
        monkeypatch.setattr(module, "session", lambda *_: pytest.fail("starts Ray"))
    result = run(*words(kind, images), "--out", str(out))
    assert result.exit_code == 2, result.output
    last = result.output.splitlines()[-1]
    assert "Allowed: " in last
    assert RunFolder(out).path.name[-20:] in last
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("kind", ALL)
def test_a_folder_that_may_not_be_written_is_refused(
    kind: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0o555)
    result = run(*words(kind, images), "--out", "closed/run")
    assert result.exit_code == 2
    assert "closed/run: cannot be made" in result.output


@pytest.mark.parametrize("kind", TRAINS)
@pytest.mark.parametrize("there", [True, False])
def test_nothing_is_left_behind_when_ray_does_not_start(
    kind: str, there: bool, images: Path, tmp_path: Path
) -> None:
    if there:
        Path("deep/run").mkdir(parents=True)
    result = run(*words(kind, images), "--out", "deep/run", "--address", "127.0.0.1:1")
    assert result.exit_code == 2, result.output
    assert "127.0.0.1:1" in result.output
    assert Path("deep").exists() == there
    assert not there or not any(Path("deep/run").iterdir())


@pytest.mark.parametrize("kind", TRAINS)
def test_nothing_is_left_behind_when_the_machine_is_too_small(
    kind: str, images: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_small(*_: Any) -> None:
        raise ResourceError("too small")

    monkeypatch.setattr("dmlray.api.runs.cluster_train.resources_of", too_small)
    monkeypatch.setattr("dmlray.api.searches.searching.resources_of", too_small)
    monkeypatch.setattr(averages, "share_of", too_small)
    monkeypatch.setattr(ensembles, "share_of", too_small)
    result = run(*words(kind, images), "--out", "deep/run")
    assert (result.exit_code, Path("deep").exists()) == (2, False), result.output


def test_nothing_is_left_behind_when_runs_cannot_be_merged(finished: list[str]) -> None:
    for wrong in (["--pca", "1000"], ["--whiten", "--pca", "1000"], ["--greedy"], ["nowhere"]):
        result = run("merge", *finished, *wrong, "--out", "merged")
        assert (result.exit_code, Path("merged").exists()) == (2, False), result.output


def test_of_two_new_runs_at_the_same_time_one_is_refused(images: Path) -> None:
    plan = read_experiment(EXPERIMENT, toy_words(images)).experiment
    dataset = load_dataset(plan)
    all_checked, begun = FORK.Barrier(4), FORK.Queue()

    def begin_one() -> None:
        folder = RunFolder(Path("deep/run"))

        def write() -> None:
            folder.plan("experiment").write_text("plan")

        try:
            with new_run(folder) as opened:
                all_checked.wait()
                opened.start(write, dataset)
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
        opened.start()
    with new_run(folder) as opened:
        opened.start()
    assert not any(folder.path.iterdir())
