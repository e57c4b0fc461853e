"""Images are decoded once, whole or not at all, and shared."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dmlray.data.cache import atomic_dir, cache_build
from dmlray.data.cache.image_cache import cache_folder, open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.datasets.folder import read
from dmlray.errors import DataError, ResourceError
from tests.data.caches import assert_holds

Disk = namedtuple("Disk", "total used free")


def left_behind() -> list[str]:
    return sorted(path.name for path in (cache_folder() / "images").iterdir())


@pytest.mark.parametrize("short_side", [None, 32])
def test_holds_every_image_in_order(dataset: Dataset, short_side: int | None) -> None:
    cache = open_cache(dataset, short_side, processes=1)
    assert_holds(cache, dataset, short_side)
    assert {path.name for path in cache.folder.iterdir()} == {
        "images.bin",
        "index.npy",
        "cache.json",
    }


@pytest.mark.usefixtures("several")
def test_several_processes_build_the_same_bytes(dataset: Dataset) -> None:
    steps: list[tuple[int, int]] = []
    cache = open_cache(dataset, 32, lambda done, count: steps.append((done, count)), processes=3)
    assert_holds(cache, dataset, 32)
    assert steps == sorted(steps)
    assert steps[-1] == (len(dataset), len(dataset))
    assert len(list(cache.folder.iterdir())) == 3


def test_is_built_once(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    built = open_cache(dataset, 32, processes=1)

    def never(*args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(cache_build, "measure", never)
    assert open_cache(dataset, 32).folder == built.folder


def test_other_settings_and_other_images_have_other_caches(dataset: Dataset) -> None:
    folders = {open_cache(dataset, side, processes=1).folder for side in (None, 32, 33)}
    Image.new("RGB", (9, 9)).save(dataset.root / "a" / "0.png")
    changed = read("folder", dataset.root)
    folders.add(open_cache(changed, 32, processes=1).folder)
    assert len(folders) == 4
    assert_holds(open_cache(changed, 32), changed, 32)


@pytest.mark.parametrize("damage", ["images.bin", "index.npy", "cache.json", "json", "gone"])
def test_damaged_cache_is_built_again(dataset: Dataset, damage: str) -> None:
    folder = open_cache(dataset, None, processes=1).folder
    if damage == "json":
        (folder / "cache.json").write_text("[")
    elif damage == "gone":
        (folder / "images.bin").unlink()
    else:
        os.truncate(folder / damage, (folder / damage).stat().st_size // 2)
    assert_holds(open_cache(dataset, None, processes=1), dataset, None)


def test_description_of_other_images_is_not_believed(dataset: Dataset) -> None:
    about = open_cache(dataset, None, processes=1).folder / "cache.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"fingerprint": "other"}))
    open_cache(dataset, None, processes=1)
    assert json.loads(about.read_text())["fingerprint"] == dataset.fingerprint


def test_other_limits_of_pixels_have_other_caches(dataset: Dataset) -> None:
    assert len(open_cache(dataset, 16, max_pixels=10_000)) == len(dataset)
    with pytest.raises(DataError, match="has more than 1,900 pixels"):
        open_cache(dataset, 16, max_pixels=1900)


@pytest.mark.parametrize("most", [4095, 4096])
def test_twelve_bits_in_sixteen_are_remarked_on(dataset: Dataset, most: int) -> None:
    for row in (0, 1):
        deep = Image.fromarray(np.full((9, 9), most - row, np.uint16))
        deep.save(dataset.root / dataset.files[row])
    remarks = open_cache(dataset, None, processes=1).remarks
    assert len(remarks) == (most == 4095)
    if remarks:
        assert remarks[0].startswith("no value of the 2 16-bit images is above 4,095")


def test_full_disk_is_told_before_building(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = open_cache(dataset, None, processes=1).sizes(np.arange(len(dataset))).prod(1).sum() * 3
    shutil.rmtree(cache_folder())
    disk = Disk(total=10**6, used=0, free=int(size) + 10**6 // 20 - 1)  # one byte short
    monkeypatch.setattr(shutil, "disk_usage", lambda path: disk)
    monkeypatch.setattr(cache_build, "write", None)
    with pytest.raises(DataError, match=r"take 0\.00 GB and .* 0\.00 GB must stay free\. Free"):
        open_cache(dataset, None, processes=1)
    assert [name for name in left_behind() if not name.endswith(".lock")] == []


def test_size_is_told_before_the_first_image_is_decoded(dataset: Dataset) -> None:
    calls: list[int] = []
    cache = open_cache(
        dataset, 32, lambda done, count: calls.append(-done), processes=1, announce=calls.append
    )
    assert calls[0] == (cache.folder / cache_build.IMAGES).stat().st_size
    assert calls[-1] == -len(dataset)
    open_cache(dataset, 32, announce=calls.append)
    assert calls[-1] == -len(dataset)  # nothing is decoded or announced


def test_unwritable_cache_folder_is_named(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot be written"):
        open_cache(dataset, None, processes=1)


SLOW_BUILD = """
import os, sys, time
from pathlib import Path
from dmlray.data.cache import cache_build
from dmlray.data.datasets.folder import read
from dmlray.data.cache.image_cache import open_cache
def wait(done, count):
    print(done, flush=True)
    time.sleep(60)
cache_build.STRIDE = 2
open_cache(read("folder", Path(sys.argv[1])), None, wait, processes=1)
"""


def test_killed_build_leaves_nothing_that_is_used(dataset: Dataset) -> None:
    command = [sys.executable, "-c", SLOW_BUILD, str(dataset.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # some images are written
        process.send_signal(signal.SIGKILL)
    assert [name for name in left_behind() if ".partial-" in name]
    cache = open_cache(dataset, None, processes=1)
    assert_holds(cache, dataset, None)
    assert left_behind() == [cache.folder.name, f"{cache.folder.name}.lock"]


@pytest.mark.usefixtures("several")
def test_killed_decoder_is_told(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen

    def doomed(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        script = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return start([sys.executable, "-c", script], **options)

    monkeypatch.setattr(subprocess, "Popen", doomed)
    with pytest.raises(ResourceError, match="status -9"):
        open_cache(dataset, None, processes=2)


def build_and_count(root: Path, builds: Path) -> None:
    dataset = read("folder", root)

    def note(done: int, count: int) -> None:
        time.sleep(0.05)  # long enough for the other to arrive
        with open(builds / f"{os.getpid()}", "a") as file:
            file.write(".")

    assert_holds(open_cache(dataset, None, note, processes=1), dataset, None)


def test_two_processes_at_once_build_once(dataset: Dataset, tmp_path: Path) -> None:
    builds = tmp_path / "builds"
    builds.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=build_and_count, args=(dataset.root, builds)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(builds.iterdir())) == 1


def build_without_locks(root: Path, builds: Path, host: str) -> None:
    """As on another machine whose file system does not support locks."""
    vars(atomic_dir)["FileLock"] = nullcontext
    socket.gethostname = lambda: host
    build_and_count(root, builds)


def test_two_machines_without_locks_may_both_build_and_both_read(
    dataset: Dataset, tmp_path: Path
) -> None:
    builds = tmp_path / "builds"
    builds.mkdir()
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=build_without_locks, args=(dataset.root, builds, host))
        for host in ("one", "two")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list(builds.iterdir())) in (1, 2)  # the later one may find it done
    assert len(left_behind()) == 1


def test_pickle_carries_the_address_and_not_the_pixels(dataset: Dataset) -> None:
    cache = open_cache(dataset, None, processes=1)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 1000
    assert_holds(pickle.loads(pickled), dataset, None)


def test_images_are_views_that_cannot_be_written(dataset: Dataset) -> None:
    cache = open_cache(dataset, None, processes=1)
    assert np.shares_memory(cache[3], cache[3])
    with pytest.raises(ValueError, match="read-only"):
        cache[3][0, 0, 0] = 1
