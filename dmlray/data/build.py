"""Decode all images of a data set into one flat file, by one process or by several.

Several are plain processes that run this file: unlike a fork they cannot inherit a locked thread,
and unlike multiprocessing's spawn they never import the user's script again. They take their job
from a file and tell of their progress down one common pipe.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dmlray.data.decode import decode, decoded_size
from dmlray.errors import DataError, ResourceError
from dmlray.storage import write_array

IMAGES, INDEX, JOB = "images.bin", "index.npy", "job.json"
FEW = 2000  # images below which more processes cost more time than they save
FEW_HEADERS = 20_000  # the same where only headers are read
STRIDE = 32  # images between two words of progress

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Job:
    """What to decode: `files` below `root`, to `short_side` pixels or as they are."""

    root: str
    files: Sequence[str]
    short_side: int | None

    def path(self, row: int) -> Path:
        return Path(self.root, self.files[row])


def measure(job: Job, folder: Path, processes: int) -> np.ndarray:
    """Lay the images out one after another: (N, 3) int64 of offset, height, width."""
    index = np.zeros((len(job.files), 3), dtype=np.int64)
    processes = processes if len(job.files) > FEW_HEADERS else 1
    for _ in _share(_measure, job, folder, processes):
        pass
    for first in range(processes):
        index[first::processes, 1:] = np.load(_sizes_file(folder, first))
    index[1:, 0] = (3 * index[:-1, 1] * index[:-1, 2]).cumsum()
    return index


def write(
    job: Job, index: np.ndarray, folder: Path, processes: int, progress: Progress | None
) -> None:
    """Decode every image of `job` to its place in the flat file below `folder`.

    Raises:
        DataError: If an image cannot be read; it is named.
        ResourceError: If one of the processes is killed.
    """
    (folder / IMAGES).touch()
    write_array(folder / INDEX, index)
    done, processes = 0, processes if len(job.files) > FEW else 1
    for step in _share(_write, job, folder, processes):
        done += step
        if progress:
            progress(done, len(job.files))


def _measure(job: Job, folder: Path, first: int, processes: int) -> Iterator[int]:
    """Read the headers of every `processes`-th image and leave (n, 2) height, width behind."""
    rows = range(first, len(job.files), processes)
    sizes = [decoded_size(job.path(row), job.short_side) for row in rows]
    write_array(_sizes_file(folder, first), np.array(sizes, dtype=np.int64).reshape(-1, 2))
    yield len(sizes)


def _sizes_file(folder: Path, first: int) -> Path:
    return folder / f"sizes-{first}.npy"


def _write(job: Job, folder: Path, first: int, processes: int) -> Iterator[int]:
    """Write every `processes`-th image; yield how many were done since the last word."""
    index = np.load(folder / INDEX)
    rows = range(first, len(job.files), processes)
    with open(folder / IMAGES, "r+b") as file:
        for done, row in enumerate(rows, start=1):
            pixels = decode(job.path(row), job.short_side)
            if pixels.shape[:2] != tuple(index[row, 1:]):
                raise DataError(f"{job.path(row)}: changed while it was read.")
            file.seek(index[row, 0])
            file.write(pixels.data)
            if done % STRIDE == 0:
                yield STRIDE
    yield len(rows) % STRIDE


Task = Callable[[Job, Path, int, int], Iterator[int]]
_TASKS: dict[str, Task] = {task.__name__: task for task in (_measure, _write)}


def _share(task: Task, job: Job, folder: Path, processes: int) -> Iterable[int]:
    """Do `task` here or, when there are several processes, apart; yield its progress."""
    if processes == 1:
        return task(job, folder, 0, 1)
    (folder / JOB).write_text(json.dumps(asdict(job)), encoding="utf-8")
    return _listen(task.__name__, folder, processes)


def _listen(task: str, folder: Path, processes: int) -> Iterator[int]:
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
            yield from map(_heard, lines)
        _check(workers)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _heard(line: str) -> int:
    word = json.loads(line)
    if isinstance(word, list):
        raise OSError(*word)
    if isinstance(word, str):
        raise DataError(word)
    return int(word)


def _check(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    for worker in workers:
        if status := worker.wait():
            raise ResourceError(
                f"a process that decodes images ended with status {status}; is memory short?"
            )


def _work(task: str, folder: Path, processes: int, first: int) -> None:
    job = Job(**json.loads((folder / JOB).read_text(encoding="utf-8")))
    try:
        for step in _TASKS[task](job, folder, first, processes):
            _say(step)
    except DataError as error:
        _say(str(error))
    except BrokenPipeError:  # the process that asked is gone
        return
    except OSError as error:
        _say([error.errno, error.strerror, str(error.filename or folder)])


def _say(word: int | str | list[Any]) -> None:
    sys.stdout.write(json.dumps(word) + "\n")
    sys.stdout.flush()  # line by line: short writes to one pipe never mix


if __name__ == "__main__":
    _work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
