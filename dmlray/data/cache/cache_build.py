"""Decode all images of a data set, into one flat file or to check them, in one process or several.

Several are plain processes that run this file: unlike a fork they cannot inherit a locked thread,
and unlike multiprocessing's spawn they never import the user's script again. They take their job
from a file and write what they find to one common pipe.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from dmlray.atomic_files import write_array
from dmlray.data.cache.decode import UnreadableImage, decoded, decoded_size
from dmlray.data.cache.findings import DecodingRemarks
from dmlray.errors import DataError, ResourceError

IMAGES, INDEX, JOB = "images.bin", "index.npy", "job.json"
FEW = 2000  # images below which more processes cost more time than they save
FEW_HEADERS = 20_000  # the same where only headers are read
STRIDE = 32  # images between two words of progress
LONGEST = 200  # characters of a reason: a word must be short

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DecodeJob:
    """What to decode: `files` below `root`, to `short_side` pixels or as they are.

    Images of more than `max_pixels` are refused; None means Pillow's own limit.
    """

    root: str
    files: Sequence[str]
    short_side: int | None
    max_pixels: int | None = None

    def path(self, row: int) -> Path:
        return Path(self.root, self.files[row])


def measure(job: DecodeJob, folder: Path, processes: int) -> np.ndarray:
    """Lay the images out one after another: (N, 3) int64 of offset, height, width.

    An image whose header cannot be read has height and width 0.
    """
    index = np.zeros((len(job.files), 3), dtype=np.int64)
    processes = processes if len(job.files) > FEW_HEADERS else 1
    for _ in _share(_measure, job, folder, processes):
        pass
    for first in range(processes):
        index[first::processes, 1:] = np.load(_sizes_file(folder, first))
    index[1:, 0] = (3 * index[:-1, 1] * index[:-1, 2]).cumsum()
    return index


def write(
    job: DecodeJob, index: np.ndarray, folder: Path, processes: int, progress: Progress | None
) -> DecodingRemarks:
    """Decode every image of `job` to its place in the flat file below `folder`.

    Where images cannot be decoded the others are decoded all the same; the index that is left in
    `folder` gives the broken ones height and width 0.

    Raises:
        ResourceError: If one of the processes is killed.
    """
    (folder / IMAGES).touch()
    write_array(folder / INDEX, index)
    findings = _decode_all(_write, job, folder, processes, progress)
    index[list(findings.broken), 1:] = 0
    write_array(folder / INDEX, index)
    return findings


def check(job: DecodeJob, processes: int, progress: Progress | None) -> DecodingRemarks:
    """Decode every image of `job` and keep nothing.

    Raises:
        ResourceError: If one of the processes is killed.
    """
    with TemporaryDirectory() as folder:
        return _decode_all(_check, job, Path(folder), processes, progress)


def cores() -> int:
    """How many processes can run at once."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode_all(
    task: "Task", job: DecodeJob, folder: Path, processes: int, progress: Progress | None
) -> DecodingRemarks:
    findings = DecodingRemarks()
    for found in _share(task, job, folder, processes if len(job.files) > FEW else 1):
        findings.add(found)
        if progress:
            progress(findings.done, len(job.files))
    return findings


def _measure(job: DecodeJob, folder: Path, first: int, processes: int) -> Iterator[DecodingRemarks]:
    """Read the headers of every `processes`-th image and leave (n, 2) height, width behind."""
    rows = range(first, len(job.files), processes)
    sizes = [_size(job, row) for row in rows]
    write_array(_sizes_file(folder, first), np.array(sizes, dtype=np.int64).reshape(-1, 2))
    yield DecodingRemarks(done=len(sizes))


def _size(job: DecodeJob, row: int) -> tuple[int, int]:
    try:
        return decoded_size(job.path(row), job.short_side, job.max_pixels)
    except UnreadableImage:  # `write` meets it again, and lists it
        return 0, 0


def _sizes_file(folder: Path, first: int) -> Path:
    return folder / f"sizes-{first}.npy"


def _write(job: DecodeJob, folder: Path, first: int, processes: int) -> Iterator[DecodingRemarks]:
    """Write every `processes`-th image to its place."""
    index = np.load(folder / INDEX)
    with open(folder / IMAGES, "r+b") as file:

        def keep(row: int, image: Image.Image) -> None:
            pixels = np.asarray(image)
            if pixels.shape[:2] != tuple(index[row, 1:]):
                reason = "changed while it was read"
                raise UnreadableImage(f"{job.path(row)}: {reason}.", reason, False)
            file.seek(index[row, 0])
            file.write(pixels.data)

        yield from _decode(job, first, processes, keep)


def _check(job: DecodeJob, folder: Path, first: int, processes: int) -> Iterator[DecodingRemarks]:
    """Decode every `processes`-th image."""
    return _decode(job, first, processes, lambda row, image: None)


def _decode(
    job: DecodeJob, first: int, processes: int, use: Callable[[int, Image.Image], None]
) -> Iterator[DecodingRemarks]:
    """Decode every `processes`-th image for `use`; yield the findings since the last ones."""
    found = DecodingRemarks()
    for row in range(first, len(job.files), processes):
        try:
            image, peak, scaled = decoded(job.path(row), job.short_side, job.max_pixels)
            use(row, image)
            found.deep += peak is not None
            found.peak = max(found.peak, peak or 0)
            found.scaled += [row] * scaled
        except UnreadableImage as error:
            reasons = found.broken if error.broken else found.unreached
            reasons[row] = error.reason[:LONGEST]
        found.done += 1
        if found.done == STRIDE or found.broken or found.unreached:
            yield found
            found = DecodingRemarks()
    yield found


Task = Callable[[DecodeJob, Path, int, int], Iterator[DecodingRemarks]]
_TASKS: dict[str, Task] = {task.__name__: task for task in (_measure, _write, _check)}


def _share(task: Task, job: DecodeJob, folder: Path, processes: int) -> Iterable[DecodingRemarks]:
    """Do `task` here or, when there are several processes, apart; yield its findings."""
    if processes == 1:
        return task(job, folder, 0, 1)
    (folder / JOB).write_text(json.dumps(asdict(job)), encoding="utf-8")
    return _collect(task.__name__, folder, processes)


def _collect(task: str, folder: Path, processes: int) -> Iterator[DecodingRemarks]:
    reading, writing = os.pipe()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __name__, task, str(folder), str(processes)]
    workers = [
        # A session of its own: Ctrl-C reaches this process alone, which then ends the others.
        subprocess.Popen(
            [*command, str(first)], stdout=writing, env=environment, start_new_session=True
        )
        for first in range(processes)
    ]
    os.close(writing)
    try:
        with open(reading, encoding="utf-8") as lines:
            yield from map(_received, lines)
        _check_ends(workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _received(line: str) -> DecodingRemarks:
    word = json.loads(line)
    if isinstance(word, list):
        raise OSError(*word)
    if isinstance(word, str):
        raise DataError(word)
    return DecodingRemarks.parsed(word)


def _check_ends(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    for worker in workers:
        if status := worker.wait():
            raise ResourceError(
                f"a process that decodes images ended with status {status}; is memory short?"
            )


def _work(task: str, folder: Path, processes: int, first: int) -> None:
    job = DecodeJob(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    try:
        for found in _TASKS[task](job, folder, first, processes):
            _report(asdict(found))
    except BrokenPipeError:  # the process that asked is gone
        return
    except OSError as error:
        _report([error.errno, error.strerror, str(error.filename or folder)])


def _report(word: dict[str, Any] | str | list[Any]) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()  # line by line: short writes to one pipe never mix


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
