"""The workers that share each batch, so that N of them take the very step that one would take."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Team:
    """This process's place in the default process group."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this worker writes what all of them know."""
        return self.rank == 0

    def own(self, count: int) -> slice:
        """Where this worker's `count` rows stand among the rows of all."""
        return slice(self.rank * count, (self.rank + 1) * count)

    def gather(self, rows: Tensor) -> Tensor:
        """Rows (n, ...) of each worker, as many on each: (size * n, ...) in order of rank.

        Only a worker's own rows lead back to its parameters, `size`-fold: the mean over workers
        (`average_gradients`) is then the gradient of the whole batch, for what every worker
        computes alike (proxies) and for what each computes for its rows (trunk, heads).
        """
        if self.size == 1:
            return rows
        parts = [torch.empty_like(rows.detach().contiguous()) for _ in range(self.size)]
        dist.all_gather(parts, rows.detach().contiguous())
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
        rows = self.gather(torch.nn.functional.pad(text, (0, max(lengths) - len(text))))
        parts = rows.view(self.size, -1)
        return [
            json.loads(bytes(part[:length].tolist()))
            for part, length in zip(parts, lengths, strict=True)
        ]

    @torch.no_grad()
    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace gradients by their means over the workers, in one message."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.size == 1 or not gradients:
            return
        message = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(message)
        parts = message.div_(self.size).split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def agree(self, model: nn.Module) -> None:
        """Give every worker the first one's parameters and buffers."""
        if self.size > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)

    def wait(self) -> None:
        """Wait for all workers."""
        if self.size > 1:
            dist.barrier()


ALONE = Team()
