"""Out of memory is recognised in every wording, and nothing else is."""

import errno
import pickle

import numpy as np
import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayTaskError
from ray.train import ControllerError, WorkerGroupError

from dmlray.cluster.error_messages import (
    as_dmlray_error,
    is_out_of_memory,
    is_plain_out_of_memory,
    of_worker,
    out_of_memory_on_top,
)
from dmlray.errors import ConfigError, DataError, RunError

NO_MEMORY = [
    torch.OutOfMemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."),
    torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be asynchronous"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED"),
    RuntimeError("cuFFT error: CUFFT_ALLOC_FAILED"),
    torch.distributed.DistBackendError(
        "NCCL error in: NCCLUtils.cpp:94, unhandled cuda error (run with NCCL_DEBUG=INFO)\n"
        "Last error:\nCuda failure 2 'out of memory'"
    ),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate "
        "memory: you tried to allocate 1 bytes. Error code 12 (Cannot allocate memory)"
    ),
    RuntimeError("unable to mmap 80 bytes from file <x>: Cannot allocate memory (12)"),
    RuntimeError("Error in faiss: std::bad_alloc"),
    OSError(errno.ENOMEM, "Cannot allocate memory"),
    OSError(errno.ENOMEM, "Cannot allocate memory", "images.bin"),
    MemoryError(),
    np._core._exceptions._ArrayMemoryError((1,), np.dtype("f8")),  # type: ignore[attr-defined]
    OutOfMemoryError("Task was killed due to the node running low on memory."),
]
OTHERS = [
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("NCCL error: unhandled cuda error, Cuda failure 'initialization error'"),
    OSError(errno.ENOSPC, "No space left on device"),
    FileNotFoundError(errno.ENOENT, "no such file", "/data/out of memory/1.png"),
    ValueError("out of memory"),
    DataError("/data/out of memory/1.png: cannot be read"),
]


def raised(error: Exception, how: str) -> Exception:
    """Wrap the error in another one."""
    try:
        try:
            raise error
        except Exception as cause:
            if how == "cause":
                raise KeyError("wrapped") from cause
            if how == "suppressed":
                raise KeyError("another matter") from None
            raise KeyError("while handling")  # noqa: B904
    except KeyError as outer:
        return outer


def from_actor(error: Exception) -> RayTaskError:
    """Pickle the error as Ray does, without its cause."""
    try:
        with out_of_memory_on_top():
            raise error
    except Exception as top:
        found: RayTaskError = pickle.loads(pickle.dumps(RayTaskError("train", "...", top)))
        return found


@pytest.mark.parametrize("error", NO_MEMORY, ids=lambda error: f"{error!r:.60}")
def test_each_wording_is_recognised_in_every_wrapping(error: Exception) -> None:
    for wrapped in (error, raised(error, "cause"), raised(error, "context")):
        assert is_out_of_memory(wrapped)
        assert is_out_of_memory(raised(wrapped, "cause"))
        assert is_out_of_memory(from_actor(wrapped))
    assert not is_out_of_memory(raised(error, "suppressed"))
    assert str(as_dmlray_error(error)).startswith("out of memory: try a smaller data.batch_size")


@pytest.mark.parametrize("error", OTHERS, ids=lambda error: f"{error!r:.60}")
def test_nothing_else_is_recognised(error: Exception) -> None:
    assert not is_out_of_memory(error)
    assert not is_out_of_memory(from_actor(error))
    assert not is_out_of_memory(raised(error, "cause"))
    assert "out of memory: try" not in str(as_dmlray_error(error))


def test_only_after_a_failed_allocation_does_a_process_still_work() -> None:
    plain = [is_plain_out_of_memory(error) for error in NO_MEMORY]
    assert sum(plain) == 4  # torch's of a GPU, Python's and numpy's
    assert not any(map(is_plain_out_of_memory, OTHERS))


def test_a_dmlray_error_caused_by_it_is_kept() -> None:
    sentence = RunError("member 3: use a smaller data.batch_size")
    sentence.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    assert not is_out_of_memory(sentence)
    assert not is_out_of_memory(from_actor(sentence))
    assert as_dmlray_error(sentence) is sentence


def test_the_cause_is_preferred_to_its_consequences_on_other_workers() -> None:
    mistake, consequence = ConfigError("x", ["is wrong"]), RuntimeError("connection closed")
    assert of_worker(WorkerGroupError("", {0: consequence, 1: mistake})) is mistake
    assert of_worker(WorkerGroupError("", {0: consequence})) is consequence
    assert of_worker(ControllerError(mistake)) is mistake
    assert of_worker(consequence) is consequence
