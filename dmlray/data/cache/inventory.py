"""List and clear the caches of decoded images."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dmlray.data.cache import cache_build
from dmlray.data.cache.atomic_dir import is_own, remove, roots, targets
from dmlray.data.cache.image_cache import ABOUT, images_folder, images_folders
from dmlray.errors import ConfigError


@dataclass(frozen=True)
class CacheEntry:
    """One cache: `images` of `dataset`, decoded from `root` to `short_side` pixels (None: raw).

    Or files of the images that lie inside of the table `root`, see `image_copies`.
    """

    folder: Path
    dataset: str
    root: Path
    images: int
    bytes: int
    short_side: int | None
    last_used: datetime
    data_found: bool


@dataclass(frozen=True)
class Cleared:
    """Caches that `clear` removed, and those it kept because a process is making them."""

    removed: tuple[CacheEntry, ...]
    busy: tuple[CacheEntry, ...]


def listing() -> list[CacheEntry]:
    """List all caches on this machine, most recently used first."""
    entries = (_entry(folder) for parent in images_folders() for folder in parent.glob("*"))
    return sorted(filter(None, entries), key=lambda entry: entry.last_used, reverse=True)


def clear(names: Collection[str] | None = None, unused_since: datetime | None = None) -> Cleared:
    """Remove caches, and all files that killed processes left.

    Runs on this machine that read a removed cache keep its pages until they end. Runs on other
    machines that share the file system lose them: clear only while none of them trains.

    Args:
        names: Names of data sets or folders; None means all.
        unused_since: Keep caches used at this time or later.

    Raises:
        ConfigError: If no cache has that name.
    """
    chosen = [
        entry
        for entry in _named(listing(), names)
        if unused_since is None or entry.last_used < unused_since
    ]
    removed = {entry.folder: remove(entry.folder) for entry in chosen}
    _sweep()
    return Cleared(
        removed=tuple(entry for entry in chosen if removed[entry.folder]),
        busy=tuple(entry for entry in chosen if not removed[entry.folder]),
    )


def _named(entries: list[CacheEntry], names: Collection[str] | None) -> list[CacheEntry]:
    if names is None:
        return entries
    known = {entry.folder.name for entry in entries} | {entry.dataset for entry in entries}
    if unknown := sorted(set(names) - known):
        allowed = f"Allowed: {', '.join(sorted(known))}." if known else "There is none."
        raise ConfigError(
            str(images_folder()), [f"no cache {name!r}. {allowed}" for name in unknown]
        )
    return [entry for entry in entries if {entry.folder.name, entry.dataset} & set(names)]


def _sweep() -> None:
    """Remove half-made and damaged folders, and locks that no process holds."""
    for target in (target for root in roots() if is_own(root) for target in targets(root)):
        remove(target, whole=False)
    whole = {entry.folder for entry in listing()}
    for parent in images_folders():
        damaged = {path for path in parent.glob("*") if _is_target(path)} - whole
        for target in targets(parent) | damaged:
            remove(target, whole=target not in whole)


def _is_target(path: Path) -> bool:
    return path.is_dir() and ".partial-" not in path.name and is_own(path)


def _entry(folder: Path) -> CacheEntry | None:
    """Read the description of a cache; None if it is damaged, unfinished or another user's."""
    if not is_own(folder):
        return None
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        root, copies = Path(about["root"]), about.get("copies", False)
        return CacheEntry(
            folder=folder,
            dataset=folder.name.rpartition("-")[0],
            root=root,
            images=about["images"],
            bytes=about["bytes"] if copies else (folder / cache_build.IMAGES).stat().st_size,
            short_side=about["short_side"],
            last_used=datetime.fromtimestamp((folder / ABOUT).stat().st_mtime).astimezone(),
            data_found=root.exists(),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
