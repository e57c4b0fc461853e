"""What a trial or a member met, in one sentence."""

import torch

from dmlray.errors import DmlrayError, RunError
from dmlray.storage import storage_error

DIED = "its process or node died"
_NO_MEMORY = RunError(
    "out of memory: try a smaller data.batch_size, fewer folds_at_once or fewer trials_at_once"
)


def told(error: Exception) -> DmlrayError:
    """The error as a sentence; one that nobody foresaw keeps its first line."""
    error = of_worker(error)
    if isinstance(error, DmlrayError):
        return error
    if storage := storage_error(error):
        return storage
    full = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if full or "can't allocate memory" in str(error):  # torch's RuntimeError on a CPU
        return _NO_MEMORY
    return RunError(f"{type(error).__name__}: {error}".split("\n")[0])


def of_worker(error: Exception) -> Exception:
    """What a worker of Ray Train met, rather a known failure than what the others met by it."""
    failures = [*getattr(error, "worker_failures", {}).values()]
    known = (failure for failure in failures if isinstance(failure, DmlrayError))
    return next(known, failures[0] if failures else error)
