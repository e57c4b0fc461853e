"""Files by paths that another system wrote: with backslashes, or in another Unicode form."""

import os
import stat
import unicodedata
from pathlib import Path, PureWindowsPath
from typing import NamedTuple


class Fault(NamedTuple):
    """Why a path names no file; `gone` where nothing else is there."""

    reason: str
    gone: bool


class Finder:
    """Finds files below `root`; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> list[str]:
        """Files that `path` may mean, relative to the root: itself where it is there."""
        paths = dict.fromkeys(os.path.normpath(p) for p in (path, path.replace("\\", "/")))
        for written in paths:
            if os.path.isfile(self._root / written):
                return [written]
        return sorted({file for written in paths for file in self._alike(written)})

    def _alike(self, path: str) -> list[str]:
        """Files whose path is the same text as `path` in some Unicode form."""
        if path.isascii():
            return []
        files = ["/" if path.startswith("/") else ""]
        for part in path.strip("/").split("/"):
            files = [os.path.join(file, name) for file in files for name in self._names(file, part)]
        return [file for file in files if os.path.isfile(self._root / file)]

    def _names(self, folder: str, part: str) -> list[str]:
        """Names in a folder that are the same text as `part`."""
        if folder not in self._listed:
            self._listed[folder] = _by_text(self._root / folder)
        return self._listed[folder].get(_text(part), [part])


def fault_of(path: Path, written: str) -> Fault:
    """Why there is no file at `path`, which was `written` so."""
    if PureWindowsPath(written).drive:
        return Fault("it is on a drive of Windows", gone=True)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Fault("a link to nothing" if path.is_symlink() else "", gone=True)
    except OSError as error:
        return Fault(str(error.strerror), gone=False)
    except ValueError as error:  # a null character
        return Fault(str(error), gone=False)
    return Fault("a folder" if stat.S_ISDIR(mode) else "a pipe or a device", gone=False)


def _by_text(folder: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    try:
        for name in os.listdir(folder):
            names.setdefault(_text(name), []).append(name)
    except (OSError, ValueError):  # it may still be entered
        return {}
    return names


def _text(name: str) -> str:
    return unicodedata.normalize("NFC", name)
