"""Find files by paths written on another system: with backslashes or in another Unicode form."""

import os
import stat
import unicodedata
from pathlib import Path, PureWindowsPath
from typing import NamedTuple


class Fault(NamedTuple):
    """Why a path is not a file; `gone`: nothing exists there."""

    reason: str
    gone: bool


class Finder:
    """Find files below `root`; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> list[str]:
        """Return the files that `path` may mean, relative to the root; only itself if it exists."""
        paths = dict.fromkeys(os.path.normpath(p) for p in (path, path.replace("\\", "/")))
        for written in paths:
            if os.path.isfile(self._root / written):
                return [written]
        return sorted({file for written in paths for file in self._alike(written)})

    def _alike(self, path: str) -> list[str]:
        """Files whose path equals `path` in some Unicode form."""
        if path.isascii():
            return []
        files = ["/" if path.startswith("/") else ""]
        for part in path.strip("/").split("/"):
            files = [os.path.join(file, name) for file in files for name in self._names(file, part)]
        return [file for file in files if os.path.isfile(self._root / file)]

    def _names(self, folder: str, part: str) -> list[str]:
        """Names in a folder that equal `part` in some Unicode form."""
        if folder not in self._listed:
            self._listed[folder] = _by_normal_form(self._root / folder)
        return self._listed[folder].get(_normal_form(part), [part])


def fault_of(path: Path, written: str) -> Fault:
    """Return why there is no file at `path`, `written` as in the list."""
    if PureWindowsPath(written).drive:
        return Fault("a path on a Windows drive", gone=True)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Fault("a broken link" if path.is_symlink() else "", gone=True)
    except OSError as error:
        return Fault(str(error.strerror), gone=False)
    except ValueError as error:  # a null character
        return Fault(str(error), gone=False)
    return Fault("a folder" if stat.S_ISDIR(mode) else "a pipe or a device", gone=False)


def _by_normal_form(folder: Path) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    try:
        for name in os.listdir(folder):
            names.setdefault(_normal_form(name), []).append(name)
    except (OSError, ValueError):  # folders that cannot be listed may still be entered
        return {}
    return names


def _normal_form(name: str) -> str:
    return unicodedata.normalize("NFC", name)
