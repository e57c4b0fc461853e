"""Files of other users in a shared cache are not trusted."""

import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dmlray.data.cache import atomic_dir
from dmlray.data.cache.image_cache import images_folder, open_cache
from dmlray.data.cache.inventory import clear, listing
from dmlray.data.dataset import Dataset
from dmlray.data.datasets import icons
from dmlray.errors import DataError

STRANGER = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


def give_away(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def replaced_by_a_link(path: Path) -> None:
    """Another user's link to this user's folder."""
    aside = path.rename(path.with_name("aside"))
    path.symlink_to(aside)
    give_away(path)


PLANTED: dict[str, Callable[[Path], None]] = {
    "cache folder": lambda made: give_away(made.parent.parent),
    "images folder": lambda made: give_away(made.parent),
    "folder": give_away,
    "pixels": lambda made: give_away(made / "images.bin"),
    "index": lambda made: give_away(made / "index.npy"),
    "description": lambda made: give_away(made / "cache.json"),
    "lock": lambda made: give_away(made.with_name(f"{made.name}.lock")),
    "link": replaced_by_a_link,
}


@as_root
@pytest.mark.parametrize("part", PLANTED)
def test_a_cache_of_which_a_stranger_owns_any_part_is_made_anew(
    dataset: Dataset, cache: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    made = open_cache(dataset, None, processes=1)
    wanted = [made[row].copy() for row in range(len(made))]
    np.memmap(made.folder / "images.bin", np.uint8, "r+")[:] = 0
    PLANTED[part](made.folder)
    with caplog.at_level(logging.WARNING):
        anew = open_cache(dataset, None, processes=1)
    assert anew.folder.parent == cache / "user-0" / "images"
    assert all(np.array_equal(anew[row], pixels) for row, pixels in enumerate(wanted))
    assert f"{cache}: holds files of another user" in caplog.text
    assert next(entry.folder for entry in listing()) == anew.folder
    caplog.clear()
    open_cache(dataset, None, processes=1)
    assert not caplog.text  # it is made once


@as_root
@pytest.mark.parametrize("part", ["folder", "drawing", "lock"])
def test_drawn_images_of_a_stranger_are_not_believed(
    cache: Path, part: str, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icons, "_draw_all", partial(shutil.copytree, photos, dirs_exist_ok=True))
    dataset = icons.load(None)
    made = dataset.root
    path = {"folder": made, "drawing": made / dataset.files[7], "lock": cache / "demo-1.lock"}[part]
    give_away(path)
    anew = icons.load(None)
    assert anew.root == cache / "user-0" / made.name
    assert anew.fingerprint == dataset.fingerprint


@as_root
def test_what_a_stranger_owns_is_neither_listed_nor_cleared(dataset: Dataset) -> None:
    made = open_cache(dataset, None, processes=1).folder
    give_away(made)
    give_away(made.with_name(f"{made.name}.lock"))
    own = open_cache(dataset, None, processes=1).folder
    assert [entry.folder for entry in listing()] == [own]
    assert [entry.folder for entry in clear().removed] == [own]
    assert made.exists()


@as_root
def test_a_cache_folder_that_is_a_strangers_throughout_is_refused(
    dataset: Dataset, cache: Path
) -> None:
    (cache / "user-0").mkdir(parents=True)
    give_away(cache)
    give_away(cache / "user-0")
    with pytest.raises(DataError, match=r"another user owns it .* DMLRAY_CACHE"):
        open_cache(dataset, None, processes=1)


@as_root
def test_a_shared_folder_of_root_serves_another_user_beside_its_caches(
    dataset: Dataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = open_cache(dataset, None, processes=1).folder
    monkeypatch.setattr(atomic_dir, "_user", lambda: STRANGER)
    assert open_cache(dataset, None, processes=1).folder == made  # root is trusted
    assert images_folder() == cache / "images"


def test_where_a_network_disk_maps_users_own_files_are_believed(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As root on NFS, where root's files belong to user nobody."""
    made = open_cache(dataset, None, processes=1).folder
    monkeypatch.setattr(atomic_dir, "_user", lambda: os.geteuid() + 1)
    assert open_cache(dataset, None, processes=1).folder == made
