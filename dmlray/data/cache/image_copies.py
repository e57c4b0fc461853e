"""Files of the images that lie inside of a table: written once per machine, as they are."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dmlray.data.cache.atomic_dir import final_path, make_whole
from dmlray.data.cache.image_cache import ABOUT, check_space

FORMAT = 1  # increased when the copies of the same table change
NOTICED = 256 << 20  # bytes from which copying takes seconds

_logger = logging.getLogger(__name__)


class StoredImage(NamedTuple):
    """An image of a table: its bytes or, if it has none, the path of its file."""

    name: str
    content: bytes | None
    path: str


@dataclass(frozen=True)
class ImageCopies:
    """Files in `folder`; `paths` are those of the images that the table had no bytes of."""

    folder: Path
    paths: dict[str, str]

    def path(self, name: str) -> str:
        """Return the path of an image relative to `folder`, or absolute; empty if it has none."""
        return self.paths.get(name, name)


def copied(
    dataset: str, source: Path, files: Sequence[Path], images: Callable[[], Iterable[StoredImage]]
) -> ImageCopies:
    """Write the images of the table `source`; the first call on a machine does.

    Args:
        dataset: Name of the data set; `dmlray data cache clear` takes it.
        source: File or folder that the user gave.
        files: Files of the table: other sizes or modification times mean other images.
        images: Reads the images, with distinct names.

    Raises:
        DataError: If the folder cannot be written or the disk is too small.
        OSError: If a file of the table is gone.
    """
    states = [os.stat(file) for file in files]
    identity = [
        [str(file), s.st_size, s.st_mtime_ns] for file, s in zip(files, states, strict=True)
    ]
    key = hashlib.sha256(json.dumps([FORMAT, identity]).encode()).hexdigest()[:16]
    target = final_path("images", f"{dataset}-{key}")
    size, modified = sum(s.st_size for s in states), max(s.st_mtime_ns for s in states)

    def make(folder: Path) -> None:
        check_space(folder, size)
        if size >= NOTICED:
            _logger.warning("%s: copying its %.1f GB of images once", source, size / 1e9)
        count, written, paths = _write(folder, images(), modified)
        about = {"root": str(source), "images": count, "bytes": written, "short_side": None}
        text = json.dumps(about | {"copies": True, "paths": paths})
        (folder / ABOUT).write_text(text, encoding="utf-8")

    make_whole(target, lambda folder: (folder / ABOUT).is_file(), make)
    with suppress(OSError):  # may be root's
        os.utime(target / ABOUT)
    return ImageCopies(target, json.loads((target / ABOUT).read_text(encoding="utf-8"))["paths"])


def _write(
    folder: Path, images: Iterable[StoredImage], modified: int
) -> tuple[int, int, dict[str, str]]:
    """Write the files; return the number of images, of bytes, and paths of those without bytes."""
    count, written, paths = 0, 0, {}
    for image in images:
        count += 1
        if image.content is None:
            paths[image.name] = image.path
            continue
        path = folder / image.name
        path.write_bytes(image.content)
        os.utime(path, ns=(modified, modified))  # copies made again are the same files
        written += len(image.content)
    return count, written, paths
