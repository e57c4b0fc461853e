"""Decode all images of a data set, into one flat file or to check them, in one process or several.

Several are subprocesses that run this file: unlike a fork they cannot inherit a locked thread, and
unlike multiprocessing's spawn they do not import the user's script again. They read the job from a
file and write their findings to a shared pipe.
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
from dmlray.data.cache.decode import UnreadableImageError, decoded, decoded_size
from dmlray.data.cache.findings import DecodingRemarks
from dmlray.errors import DataError, ResourceError

IMAGES, INDEX, JOB = "images.bin", "index.npy", "job.json"
FEW = 2000  # images below which one process is faster
FEW_HEADERS = 20_000  # the same, for reading headers only
STRIDE = 32  # images per progress message
LONGEST = 200  # characters of a reason: messages must fit into one pipe write

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DecodeJob:
    """Files to decode: `files` below `root`, to `short_side` pixels; None keeps the size.

    Images of more than `max_pixels` are refused; None means Pillow's limit.
    """

    root: str
    files: Sequence[str]
    short_side: int | None
    max_pixels: int | None = None

    def path(self, row: int) -> Path:
        """Return the path of the image in a row."""
        return Path(self.root, self.files[row])


def measure(job: DecodeJob, folder: Path, processes: int) -> np.ndarray:
    """Compute the index of the flat file: (N, 3) int64 of offset, height, width.

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
    """Decode every image of `job` to its offset in the flat file below `folder`.

    Images that cannot be decoded do not stop the others; in the index written to `folder` they
    have height and width 0.

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
    """Decode every image of `job` without storing it.

    Raises:
        ResourceError: If one of the processes is killed.
    """
    with TemporaryDirectory() as folder:
        return _decode_all(_check, job, Path(folder), processes, progress)


def cores() -> int:
    """CPU cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _decode_all(
    task: "Task", job: DecodeJob, folder: Path, processes: int, progress: Progress | None
) -> DecodingRemarks:
    findings = DecodingRemarks()
    for part in _share(task, job, folder, processes if len(job.files) > FEW else 1):
        findings.add(part)
        if progress:
            progress(findings.done, len(job.files))
    return findings


def _measure(job: DecodeJob, folder: Path, first: int, processes: int) -> Iterator[DecodingRemarks]:
    """Read the headers of every `processes`-th image and save (n, 2) height, width."""
    rows = range(first, len(job.files), processes)
    sizes = [_size(job, row) for row in rows]
    write_array(_sizes_file(folder, first), np.array(sizes, dtype=np.int64).reshape(-1, 2))
    yield DecodingRemarks(done=len(sizes))


def _size(job: DecodeJob, row: int) -> tuple[int, int]:
    try:
        return decoded_size(job.path(row), job.short_side, job.max_pixels)
    except UnreadableImageError:  # `write` reports it
        return 0, 0


def _sizes_file(folder: Path, first: int) -> Path:
    return folder / f"sizes-{first}.npy"


def _write(job: DecodeJob, folder: Path, first: int, processes: int) -> Iterator[DecodingRemarks]:
    """Write every `processes`-th image to its offset."""
    index = np.load(folder / INDEX)
    with open(folder / IMAGES, "r+b") as file:

        def keep(row: int, image: Image.Image) -> None:
            pixels = np.asarray(image)
            if pixels.shape[:2] != tuple(index[row, 1:]):
                reason = "changed while it was read"
                raise UnreadableImageError(f"{job.path(row)}: {reason}.", reason, False)
            file.seek(index[row, 0])
            file.write(pixels.data)

        yield from _decode(job, first, processes, keep)


def _check(job: DecodeJob, folder: Path, first: int, processes: int) -> Iterator[DecodingRemarks]:
    """Decode every `processes`-th image."""
    return _decode(job, first, processes, lambda row, image: None)


def _decode(
    job: DecodeJob, first: int, processes: int, use: Callable[[int, Image.Image], None]
) -> Iterator[DecodingRemarks]:
    """Decode every `processes`-th image and call `use`; yield the findings in between."""
    findings = DecodingRemarks()
    for row in range(first, len(job.files), processes):
        try:
            image, peak, scaled = decoded(job.path(row), job.short_side, job.max_pixels)
            use(row, image)
            findings.deep += peak is not None
            findings.peak = max(findings.peak, peak or 0)
            findings.scaled += [row] * scaled
        except UnreadableImageError as error:
            reasons = findings.broken if error.broken else findings.unreached
            reasons[row] = error.reason[:LONGEST]
        findings.done += 1
        if findings.done == STRIDE or findings.broken or findings.unreached:
            yield findings
            findings = DecodingRemarks()
    yield findings


Task = Callable[[DecodeJob, Path, int, int], Iterator[DecodingRemarks]]
_TASKS: dict[str, Task] = {task.__name__: task for task in (_measure, _write, _check)}


def _share(task: Task, job: DecodeJob, folder: Path, processes: int) -> Iterable[DecodingRemarks]:
    """Run `task` in this process or in `processes` subprocesses; yield its findings."""
    if processes == 1:
        return task(job, folder, 0, 1)
    (folder / JOB).write_text(json.dumps(asdict(job)), encoding="utf-8")
    return _collect(task.__name__, folder, processes)


def _collect(task: str, folder: Path, processes: int) -> Iterator[DecodingRemarks]:
    reading, writing = os.pipe()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", __name__, task, str(folder), str(processes)]
    workers = [
        # Separate session: Ctrl-C reaches only this process, which then ends the workers.
        subprocess.Popen(
            [*command, str(first)], stdout=writing, env=environment, start_new_session=True
        )
        for first in range(processes)
    ]
    os.close(writing)
    try:
        with open(reading, encoding="utf-8") as lines:
            yield from map(_parse_message, lines)
        _check_status(workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _parse_message(line: str) -> DecodingRemarks:
    message = json.loads(line)
    if isinstance(message, list):
        raise OSError(*message)
    if isinstance(message, str):
        raise DataError(message)
    return DecodingRemarks.parsed(message)


def _check_status(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    for worker in workers:
        if status := worker.wait():
            raise ResourceError(
                f"a process that decodes images ended with status {status}; out of memory?"
            )


def _work(task: str, folder: Path, processes: int, first: int) -> None:
    job = DecodeJob(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    try:
        for findings in _TASKS[task](job, folder, first, processes):
            _report(asdict(findings))
    except BrokenPipeError:  # the parent process has ended
        return
    except OSError as error:
        _report([error.errno, error.strerror, str(error.filename or folder)])


def _report(message: dict[str, Any] | str | list[Any]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()  # line by line: short writes to one pipe are atomic


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
