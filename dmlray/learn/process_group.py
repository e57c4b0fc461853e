"""Workers that share each batch, so that N of them take the same step as one would."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from dmlray.data.batches.loader import share
from dmlray.errors import ConfigError, DataError, DmlrayError, RunError

T = TypeVar("T")
_PLAIN, _WRONG, _FAILED = range(3)  # kind of message: bytes, or the text of an error
_USERS = (ConfigError, DataError)  # errors that end a command with status 2


@dataclass(frozen=True)
class ProcessGroup:
    """Rank of this process in the default process group, and the group's size."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the worker that writes files."""
        return self.rank == 0

    def local_slice(self, total: int) -> slice:
        """Return this worker's slice of the `total` rows of a batch."""
        return share(total, self.rank, self.size)

    def gather(self, rows: Tensor, total: int | None = None) -> Tensor:
        """Gather the rows (n, ...) of each worker: (total, ...) in order of rank.

        Gradients flow only through a worker's own rows, times `size`: the mean over workers
        (`GradientAverage`) is then the gradient of the whole batch, both for parameters that every
        worker uses alike (proxies) and for those applied to its rows only (trunk, heads).

        Args:
            rows: Rows (n, ...) of this worker.
            total: Rows of all workers together; None: equally many on each.
        """
        if self.size == 1:
            return rows
        total = self.size * len(rows) if total is None else total
        counts = [_length(share(total, rank, self.size)) for rank in range(self.size)]
        sent = _padded(rows.detach(), max(counts))  # all_gather needs equal shapes
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        parts = [part[:count] for part, count in zip(parts, counts, strict=True)]
        if rows.requires_grad:
            parts[self.rank] = rows.clone()
            parts[self.rank].register_hook(lambda gradient: self.size * gradient)
        return torch.cat(parts)

    def gather_json(self, value: Any) -> list[Any]:
        """Gather a JSON value of each worker, in order of rank. A pickle could execute code."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = self.gather(torch.tensor([len(text)])).tolist()
        rows = self.gather(F.pad(text, (0, max(lengths) - len(text))))
        parts = rows.view(self.size, -1)
        return [
            json.loads(bytes(part[:length].tolist()))
            for part, length in zip(parts, lengths, strict=True)
        ]

    def ask_main(self, question: Callable[[], T]) -> T:
        """Call `question` on the main worker only; return its JSON result on all workers.

        Needed for whatever depends on the run folder: on a shared disk another worker may not see
        yet what the main one wrote, take another branch and wait for ever.

        Raises:
            DmlrayError: On every worker, if `question` raised it.
        """
        if self.size == 1:
            return question()
        answer: T = json.loads(self.broadcast_bytes(lambda: json.dumps(question()).encode()))
        return answer

    def broadcast_bytes(self, read: Callable[[], bytes]) -> bytes:
        """Send the bytes that `read` returns on the main worker to every worker.

        Raises:
            DmlrayError: On every worker, if `read` raised it.
        """
        if self.size == 1:
            return read()
        content, error = b"", None
        if self.is_main:
            try:
                content = read()
            except DmlrayError as caught:
                content, error = str(caught).encode(), caught
        kind = _PLAIN if error is None else _WRONG if isinstance(error, _USERS) else _FAILED
        head = torch.tensor([len(content), kind])
        dist.broadcast(head, src=0)
        length, kind = head.tolist()
        packed = torch.frombuffer(bytearray(content or b"-"), dtype=torch.uint8)
        packed = packed if self.is_main else torch.empty(max(1, length), dtype=torch.uint8)
        dist.broadcast(packed, src=0)
        content = packed.numpy().tobytes()[:length]
        if kind != _PLAIN:
            raise error or (DataError if kind == _WRONG else RunError)(content.decode())
        return content

    @torch.no_grad()
    def broadcast(self, model: nn.Module) -> None:
        """Copy the main worker's parameters and buffers to every worker."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)


class SharedBatch(NamedTuple):
    """A batch of `total` images that the workers of a group share."""

    group: ProcessGroup
    total: int

    @property
    def local_slice(self) -> slice:
        """This worker's rows of the batch."""
        return self.group.local_slice(self.total)

    def gather(self, rows: Tensor) -> Tensor:
        """Gather the rows (n, ...) of each worker, one for each of its images: (total, ...)."""
        return self.group.gather(rows, self.total)


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _padded(rows: Tensor, length: int) -> Tensor:
    if len(rows) == length:
        return rows.contiguous()
    return torch.cat([rows, rows.new_zeros(length - len(rows), *rows.shape[1:])])


SINGLE_PROCESS = ProcessGroup()
