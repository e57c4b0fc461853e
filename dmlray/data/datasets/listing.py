"""Images in class folders, as torchvision's ImageFolder walks them, and what is passed over."""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dmlray.data.cache import formats
from dmlray.errors import DataError

SYSTEM = frozenset(  # folders that operating systems and network storage make
    {"$RECYCLE.BIN", "@eaDir", "System Volume Information", "__MACOSX", "lost+found"}
)
NAMED = 3  # names and suffixes that a remark lists
_NOWHERE = (errno.ELOOP, errno.ENOENT, errno.ENOTDIR)  # where a link can lead
_FOLDER, _IMAGE = "folder", "image"


@dataclass
class Tree:
    """What lies in class folders; names of files are relative to the root of the data set.

    `images` has each class folder, also one without images; `loose` are images outside of these,
    `others` counts files that are no images by their suffix, `unreadable` are sentences.
    """

    images: dict[str, list[str]] = field(default_factory=dict)
    loose: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    @property
    def classes(self) -> dict[str, list[str]]:
        """Class -> images, where there are any."""
        return {label: files for label, files in self.images.items() if files}


def real_path(root: Path) -> Path:
    """Path without `~` and links; nothing need be there."""
    return Path(os.path.realpath(os.path.expanduser(root)))


def read(root: Path, side: str = "") -> Tree:
    """List the class folders of `root/side`. Hidden names and folders of `SYSTEM` are left out.

    A link to nothing is listed as the image or the class folder that it stands for.

    Raises:
        DataError: If the folder cannot be listed; below it, `unreadable` says what cannot.
    """
    tree, labels = _top(root, side)
    above = {_identity(root), _identity(root / side)}
    for label in labels:
        name = f"{side}/{label}" if side else label
        there = os.path.isdir(root / name)
        tree.images[label] = list(_walk(root, name, tree, set(above))) if there else [name]
    return tree


def read_sides(root: Path) -> tuple[Tree, dict[str, Tree]]:
    """List the files of `root` itself, and each of its folders as one of class folders."""
    tree, names = _top(root, "")
    return tree, {name: read(root, name) for name in names}


def passed_over(*trees: Tree) -> str | None:
    """One remark on all that was left out."""
    others: Counter[str] = sum((tree.others for tree in trees), Counter())
    empty = [label for tree in trees for label, files in tree.images.items() if not files]
    loose = sum(len(tree.loose) for tree in trees)
    parts = []
    if others:
        kinds = _some([f"{kind} {count}" for kind, count in others.most_common()])
        parts.append(f"{_counted(others.total(), 'file')} in no known image format ({kinds})")
    if loose:
        parts.append(f"{_counted(loose, 'image')} outside of class folders")
    if empty:
        parts.append(
            f"{_counted(len(empty), 'folder')} without images ({_some(list(map(repr, empty)))})"
        )
    return f"passed over: {', '.join(parts)}" if parts else None


def unreadable(*trees: Tree) -> tuple[str, ...]:
    """One sentence on all that cannot be read, if anything cannot."""
    found = [sentence for tree in trees for sentence in tree.unreadable]
    more = f" {len(found)} files or folders cannot be read." if len(found) > 1 else ""
    return (f"{found[0]}{more}",) if found else ()


def _top(root: Path, side: str) -> tuple[Tree, list[str]]:
    """The files of `root/side`, and the names of its folders and of links to nothing."""
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
    """Images in the folder `name` and below; none in `seen`, for links may lead in circles."""
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
    """What is the same for all links to a folder.

    Raises:
        OSError: Also if the folder can be listed but not entered.
    """
    status = os.stat(os.path.join(folder, "."))
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> list["os.DirEntry[str]"]:
    """Visible entries, sorted by name."""
    with os.scandir(folder) as entries:
        visible = (entry for entry in entries if not entry.name.startswith("."))
        return sorted(visible, key=lambda entry: entry.name)


def _kinds(
    entries: list["os.DirEntry[str]"], tree: Tree
) -> Iterator[tuple["os.DirEntry[str]", str]]:
    """Pair each entry that can be read with what it is; `tree` takes those that cannot."""
    for entry in entries:
        try:
            kind = _kind(entry)
        except OSError as error:
            tree.unreadable.append(f"{entry.path}: cannot be read: {error.strerror}.")
            continue
        if kind != _FOLDER or entry.name not in SYSTEM:
            yield entry, kind


def _kind(entry: "os.DirEntry[str]") -> str:
    """`_FOLDER`, `_IMAGE`, or the suffix of another file; the content shows where none is."""
    try:
        folder, file = entry.is_dir(), entry.is_file()
        nowhere = entry.is_symlink() and not os.path.exists(entry.path)
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        folder, file, nowhere = False, False, True
    if folder:
        return _FOLDER
    if not (file or nowhere):
        return "pipe or device"
    suffix = formats.suffix(entry.name)
    if suffix:
        return _IMAGE if suffix in formats.SUFFIXES else suffix
    return _IMAGE if nowhere or _is_raster(entry.path) else "no suffix"


def _is_raster(path: str) -> bool:
    with open(path, "rb") as file:
        return formats.is_raster(file.read(formats.HEAD))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count != 1 else ''}"


def _some(items: Sequence[str]) -> str:
    """The first `NAMED` of a list."""
    more = f" and {len(items) - NAMED} more" if len(items) > NAMED else ""
    return f"{', '.join(items[:NAMED])}{more}"
