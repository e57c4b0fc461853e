"""Caches are listed, and removed unless a process makes them."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dmlray.data.cache.image_cache import Cache, images_folder, open_cache
from dmlray.data.cache.inventory import clear, listing
from dmlray.data.dataset import Dataset
from dmlray.errors import ConfigError

SLOW_BUILD = """
import sys, time
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


@pytest.fixture
def two(dataset: Dataset) -> tuple[Cache, Cache]:
    """One cache last used ten days ago, one last used now."""
    old, new = (open_cache(dataset, side, processes=1) for side in (32, None))
    used = (datetime.now() - timedelta(days=10)).timestamp()
    os.utime(old.folder / "cache.json", (used, used))
    return old, new


def files() -> list[str]:
    return sorted(path.name for path in images_folder().iterdir())


@contextmanager
def build_under_way(dataset: Dataset) -> Iterator[None]:
    """Another process has written some images; it is killed at the end."""
    command = [sys.executable, "-c", SLOW_BUILD, str(dataset.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.send_signal(signal.SIGKILL)


def test_nothing_is_listed_before_anything_is_decoded() -> None:
    assert listing() == []
    assert clear().removed == ()


def test_lists_each_cache_the_last_used_first(dataset: Dataset, two: tuple[Cache, Cache]) -> None:
    new, old = listing()
    assert (new.folder, old.folder) == (two[1].folder, two[0].folder)
    assert (new.short_side, old.short_side) == (None, 32)
    assert {entry.dataset for entry in (new, old)} == {"folder"}
    assert {entry.images for entry in (new, old)} == {len(dataset)}
    assert old.bytes == (old.folder / "images.bin").stat().st_size > 0
    assert datetime.now().astimezone() - new.last_used < timedelta(minutes=5)
    assert new.data_found


def test_use_is_noticed(dataset: Dataset, two: tuple[Cache, Cache]) -> None:
    open_cache(dataset, 32)
    assert datetime.now().astimezone() - listing()[-1].last_used < timedelta(minutes=5)


def test_missing_data_are_noticed(dataset: Dataset, two: tuple[Cache, Cache]) -> None:
    shutil.rmtree(dataset.root)
    assert not any(entry.data_found for entry in listing())


def test_clears_what_was_not_used_for_long(two: tuple[Cache, Cache]) -> None:
    cleared = clear(unused_since=datetime.now().astimezone() - timedelta(days=5))
    assert [entry.folder for entry in cleared.removed] == [two[0].folder]
    assert [entry.folder for entry in listing()] == [two[1].folder]
    assert files() == [two[1].folder.name]  # and no locks


def test_clears_by_the_name_of_a_folder_or_of_a_data_set(two: tuple[Cache, Cache]) -> None:
    assert len(clear([two[1].folder.name]).removed) == 1
    assert [entry.folder for entry in listing()] == [two[0].folder]
    assert len(clear(["folder"]).removed) == 1
    assert files() == []


def test_unknown_name_is_told_and_nothing_is_cleared(two: tuple[Cache, Cache]) -> None:
    with pytest.raises(ConfigError, match=r"no cache 'cube'. Allowed: folder, folder-"):
        clear(["cube", "folder"])
    assert len(listing()) == 2


def test_a_cache_in_the_making_is_left_alone(dataset: Dataset) -> None:
    with build_under_way(dataset):
        before = files()
        assert listing() == []
        assert clear().removed == ()
        assert files() == before
        assert any(".partial-" in name for name in before)


def test_what_a_killed_build_left_is_removed(
    dataset: Dataset, two: tuple[Cache, Cache], cache: Path
) -> None:
    raw = two[1].folder
    shutil.rmtree(raw)
    with build_under_way(dataset):
        pass
    (cache / "demo-1.partial-host-1").mkdir()
    (cache / "demo-1.lock").touch()
    clear([two[0].folder.name])
    assert files() == []
    assert [path.name for path in cache.iterdir()] == ["images"]


def test_damaged_caches_are_removed_and_whole_ones_stay(two: tuple[Cache, Cache]) -> None:
    (two[0].folder / "cache.json").write_text("[")
    assert [entry.folder for entry in listing()] == [two[1].folder]
    clear(unused_since=datetime.now().astimezone() - timedelta(days=5))
    assert files() == [two[1].folder.name]


def test_a_run_goes_on_reading_a_cache_that_is_removed(two: tuple[Cache, Cache]) -> None:
    before = two[1][3].copy()
    clear()
    assert (two[1][3] == before).all()
