"""List images in class folders, in the order of torchvision's ImageFolder, and skipped files."""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmlray.data.cache import formats
from dmlray.errors import DataError

SYSTEM = frozenset(  # folders created by operating systems and network storage
    {"$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"}
)
NAMED = 3  # names and suffixes that a remark lists
_BROKEN = (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)  # errors of a broken link
_FOLDER, _IMAGE = "folder", "image"


@dataclass
class Tree:
    """Content of class folders; file names are relative to the root of the data set.

    `images` has each class folder, also those without images; `loose` are images outside of class
    folders, `others` counts non-image files by suffix, `hidden` files and folders whose names begin
    with a dot, such as side-cars of macOS; `unreadable` are sentences.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    unreadable: list[str] = field(default_factory=list)

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class -> images, without empty classes."""
        return {label: files for label, files in self.images.items() if files}


def real_path(root: Path) -> Path:
    """Expand `~` and resolve links; the path need not exist."""
    return Path(os.path.realpath(os.path.expanduser(root)))


def read(root: Path, side: str = "") -> Tree:
    """List the class folders of `root/side`. Hidden names and folders of `SYSTEM` are left out.

    A broken link is listed as an image or a class folder.

    Raises:
        DataError: If the folder cannot be listed; errors below it go into `unreadable`.
    """
    tree, labels = _top(root, side)
    above = {_identity(root), _identity(root / side)}
    for label in labels:
        name = f"{side}/{label}" if side else label
        is_folder = os.path.isdir(root / name)
        tree.images[label] = list(_walk(root, name, tree, set(above))) if is_folder else [name]
    return tree


def read_sides(root: Path) -> tuple[Tree, dict[str, Tree]]:
    """List the files of `root`, and each of its folders as a folder of class folders."""
    tree, names = _top(root, "")
    return tree, {name: read(root, name) for name in names}


def skipped(*trees: Tree) -> str | None:
    """Describe all skipped files in one remark; None if there are none."""
    others: Counter[str] = sum((tree.others for tree in trees), Counter())
    empty = [label for tree in trees for label, files in tree.images.items() if not files]
    loose = sum(len(tree.loose) for tree in trees)
    hidden = sum(tree.hidden for tree in trees)
    parts = []
    if others:
        kinds = _some([f"{kind} {count}" for kind, count in others.most_common()])
        parts.append(f"{_counted(others.total(), 'file')} in no known image format ({kinds})")
    if hidden:
        parts.append(_counted(hidden, "hidden file"))
    if loose:
        parts.append(f"{_counted(loose, 'image')} outside of class folders")
    if empty:
        parts.append(
            f"{_counted(len(empty), 'folder')} without images ({_some(list(map(repr, empty)))})"
        )
    return f"skipped: {', '.join(parts)}" if parts else None


def unreadable(*trees: Tree) -> tuple[str, ...]:
    """Describe all unreadable files and folders, if any, in one sentence."""
    sentences = [sentence for tree in trees for sentence in tree.unreadable]
    more = f" {len(sentences)} files or folders cannot be read." if len(sentences) > 1 else ""
    return (f"{sentences[0]}{more}",) if sentences else ()


def _top(root: Path, side: str) -> tuple[Tree, list[str]]:
    """List the files of `root/side`, and the names of its folders and broken links."""
    top = root / side
    try:
        _identity(top)
        entries = _entries(top)
    except FileNotFoundError as error:
        expected = "Expected one sub-folder of images per class."
        raise DataError(f"{top}: no such folder. {expected}") from error
    except OSError as error:
        raise DataError(f"{top}: cannot be listed: {error.strerror}.") from error
    tree, folders = Tree(), []
    for entry, kind in _kinds(entries, tree):
        if kind == _FOLDER or (kind == _IMAGE and not os.path.exists(entry.path)):
            folders.append(entry.name)
        elif kind == _IMAGE:
            tree.loose.append(entry.name)
        else:
            tree.others[kind] += 1
    return tree, folders


def _walk(root: Path, name: str, tree: Tree, seen: set[tuple[int, int]]) -> Iterator[str]:
    """Yield images in the folder `name`, recursively; skip folders in `seen` (cyclic links)."""
    folders = [name]
    while folders:
        name = folders.pop()
        path = root / name
        try:
            identity, entries = _identity(path), _entries(path)
        except OSError as error:
            tree.unreadable.append(f"{path}: cannot be read: {error.strerror}.")
            continue
        if identity in seen:
            continue
        seen.add(identity)
        below = []
        for entry, kind in _kinds(entries, tree):
            if kind == _FOLDER:
                below.append(f"{name}/{entry.name}")
            elif kind == _IMAGE:
                yield f"{name}/{entry.name}"
            else:
                tree.others[kind] += 1
        folders += reversed(below)


def _identity(folder: Path) -> tuple[int, int]:
    """Device and inode, the same for all links to a folder.

    Raises:
        OSError: Also if the folder can be listed but not entered.
    """
    status = os.stat(os.path.join(folder, "."))
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Entries sorted by name."""
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _kinds(
    entries: list["os.DirEntry[str]"], tree: Tree
) -> Iterator[tuple["os.DirEntry[str]", str]]:
    """Yield (entry, kind) of the visible, readable entries; errors go into `tree.unreadable`."""
    for entry in entries:
        if entry.name.startswith("."):
            tree.hidden += 1
            continue
        try:
            kind = _kind(entry)
        except OSError as error:
            tree.unreadable.append(f"{entry.path}: cannot be read: {error.strerror}.")
            continue
        if kind != _FOLDER or entry.name not in SYSTEM:
            yield entry, kind


def _kind(entry: "os.DirEntry[str]") -> str:
    """Return `_FOLDER`, `_IMAGE`, or the suffix of another file; without one, read its content."""
    try:
        folder, file = entry.is_dir(), entry.is_file()
        broken = entry.is_symlink() and not os.path.exists(entry.path)
    except OSError as error:
        if error.errno not in _BROKEN:
            raise
        folder, file, broken = False, False, True
    if folder:
        return _FOLDER
    if not (file or broken):
        return "pipe or device"
    suffix = formats.suffix(entry.name)
    if suffix:
        return _IMAGE if suffix in formats.SUFFIXES else suffix
    return _IMAGE if broken or _is_raster(entry.path) else "no suffix"


def _is_raster(path: str) -> bool:
    with open(path, "rb") as file:
        return formats.is_raster(file.read(formats.HEAD))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _some(items: Sequence[str]) -> str:
    """Join the first `NAMED` items of a list."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return f"{', '.join(items[:NAMED])}{more}"
