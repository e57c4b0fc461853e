"""The workers that share each batch, so that N of them take the very step that one would take."""

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
_PLAIN, _WRONG, _FAILED = range(3)  # what the first worker sends: bytes, or the text of an error
_USERS = (ConfigError, DataError)  # errors that end a command with status 2


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place in the default process group."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this worker writes what all of them know."""
        return self.rank == 0

    def local_slice(self, total: int) -> slice:
        """Which of the `total` rows of a batch are this worker's."""
        return share(total, self.rank, self.size)

    def gather(self, rows: Tensor, total: int | None = None) -> Tensor:
        """Gather the rows (n, ...) of each worker: (total, ...) in order of rank.

        Only a worker's own rows lead back to its parameters, `size`-fold: the mean over workers
        (`GradientAverage`) is then the gradient of the whole batch, for what every worker
        computes alike (proxies) and for what each computes for its rows (trunk, heads).

        Args:
            total: Rows of all workers, of which each has its share; None: as many on each.
        """
        if self.size == 1:
            return rows
        total = self.size * len(rows) if total is None else total
        counts = [_length(share(total, rank, self.size)) for rank in range(self.size)]
        sent = _padded(rows.detach(), max(counts))  # all_gather wants equal shapes
        parts = [torch.empty_like(sent) for _ in range(self.size)]
        dist.all_gather(parts, sent)
        parts = [part[:count] for part, count in zip(parts, counts, strict=True)]
        if rows.requires_grad:
            parts[self.rank] = rows.clone()
            parts[self.rank].register_hook(lambda gradient: self.size * gradient)
        return torch.cat(parts)

    def gather_json(self, value: Any) -> list[Any]:
        """What each worker gives, in order of rank. JSON: a pickle would run what it holds."""
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
        """Ask `question` on the first worker alone; return its answer, of JSON, on all workers.

        Whatever depends on the run folder is asked so: on a shared disk another worker may not
        see yet what the first one wrote, and would wait for ever on a way of its own.

        Raises:
            DmlrayError: What `question` raised, on every worker.
        """
        if self.size == 1:
            return question()
        answer: T = json.loads(self.broadcast_bytes(lambda: json.dumps(question()).encode()))
        return answer

    def broadcast_bytes(self, read: Callable[[], bytes]) -> bytes:
        """Give every worker the bytes that `read` returns on the first one.

        Raises:
            DmlrayError: What `read` raised, on every worker.
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
        """Give every worker the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)


class SharedBatch(NamedTuple):
    """A batch of `total` images, of which each worker of a team has its share."""

    group: ProcessGroup
    total: int | None

    @property
    def local_slice(self) -> slice:
        """Which rows of the batch are this worker's."""
        return slice(None) if self.total is None else self.group.local_slice(self.total)

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
ALL_IMAGES = SharedBatch(SINGLE_PROCESS, None)
