"""Conversion of exceptions of trials and members to messages of one sentence."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from ray.exceptions import OutOfMemoryError, RayTaskError

from dmlray.atomic_files import storage_error
from dmlray.errors import DmlrayError, RunError

DIED = "its process or node died"
_NO_MEMORY = RunError(
    "out of memory: try a smaller data.batch_size, fewer folds_at_once or fewer trials_at_once"
)
# In RuntimeErrors of torch's other allocators, CUDA and its libraries, NCCL, C++.
_MEMORY = re.compile(
    r"out of memory|ALLOC(ATION)?_FAILED|can(no|')t allocate memory|DefaultCPUAllocator|bad_alloc",
    re.IGNORECASE,
)


def as_dmlray_error(error: Exception) -> DmlrayError:
    """Map any exception to a DmlrayError; unknown ones keep type and first line."""
    error = of_worker(error)
    if isinstance(error, DmlrayError):
        return error
    if is_out_of_memory(error):
        return _NO_MEMORY
    if storage := storage_error(error):
        return storage
    return RunError(f"{type(error).__name__}: {error}".split("\n")[0])


def of_worker(error: Exception) -> Exception:
    """Return the cause of a failed Ray Train run, preferably a DmlrayError of a worker."""
    failures = [*getattr(error, "worker_failures", {}).values()]
    failures += filter(None, [getattr(error, "controller_failure", None)])
    known = (failure for failure in failures if isinstance(failure, DmlrayError))
    return next(known, failures[0] if failures else error)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of a GPU or of the host is exhausted, whatever raised it.

    Unwraps the errors of Ray and Python; a DmlrayError has its own message and does not count.
    """
    return any(map(_is_memory, _chain(error)))


@contextmanager
def out_of_memory_on_top() -> Iterator[None]:
    """Raise a new out-of-memory error for an error that is caused by one.

    For processes of Ray, which sends an error without its cause.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error) and not _is_memory(error):
            raise RuntimeError(f"out of memory: {error}") from error
        raise


def is_plain_out_of_memory(error: BaseException) -> bool:
    """Return whether an allocator failed, after which the process and its GPU still work."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError | torch.OutOfMemoryError | OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_MEMORY.search(str(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and its causes, up to the first that is or has a DmlrayError."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        cause = error.cause if isinstance(error, RayTaskError) else error.__cause__
        if isinstance(error, DmlrayError) or isinstance(cause, DmlrayError):
            return
        yield error
        error = cause or (None if error.__suppress_context__ else error.__context__)
