"""Asynchronous checkpoints: training waits for a copy in memory, not for the disk."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from dmlray.learn import checkpoint

_ONLY_FOR_TRAINING = "optimizer"  # key that only further training needs


class CheckpointWriter:
    """Writes in one background thread, at most one epoch behind.

    Leaving the `with` block waits for the pending write.

    Raises:
        OSError: When the next epoch is saved or the block is left, if the last write failed.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def save(self, last: Path, best: Path | None, content: dict[str, Any]) -> None:
        """Start writing an epoch to `best`, without its optimizer, and then to `last`.

        Args:
            last: File of every epoch.
            best: File of the best epoch; None if this is not the best.
            content: From `TrainState.state_dict`; it may change as soon as this returns.
        """
        self.flush()
        copy, copied = _copy(content)
        targets = [(path, keep) for path, keep in ((best, False), (last, True)) if path]
        self._writing = self._thread.submit(_write, targets, copy, copied)

    def flush(self) -> None:
        """Wait until everything is written."""
        writing, self._writing = self._writing, None
        if writing:
            writing.result()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with suppress(*([Exception] if kind else [])):  # the error of the block came first
                self.flush()
        finally:
            self._thread.shutdown()


def _write(
    targets: Sequence[tuple[Path, bool]], content: dict[str, Any], copied: torch.cuda.Event | None
) -> None:
    if copied:
        copied.synchronize()
    for path, with_optimizer in targets:
        parts = {k: v for k, v in content.items() if with_optimizer or k != _ONLY_FOR_TRAINING}
        checkpoint.write(path, parts)


def _copy(content: dict[str, Any]) -> tuple[dict[str, Any], torch.cuda.Event | None]:
    """Copy the content to CPU memory; for a GPU also return the event that its copies are done.

    A GPU copies asynchronously into pinned memory, which torch caches. Copies and later steps are
    on one stream, so that the steps cannot change the copy.
    """
    gpu = False

    def copy(part: Any) -> Any:
        nonlocal gpu
        if isinstance(part, Tensor) and part.device.type == "cuda":
            gpu = True
            pinned = torch.empty_like(part, device="cpu", pin_memory=True)
            return pinned.copy_(part.detach(), non_blocking=True)
        if isinstance(part, Tensor):
            return part.detach().clone()
        if isinstance(part, dict):
            return {key: copy(value) for key, value in part.items()}
        if isinstance(part, list | tuple):
            return type(part)(map(copy, part))
        return part

    copied = copy(content)
    return copied, torch.cuda.current_stream().record_event() if gpu else None
