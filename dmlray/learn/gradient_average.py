"""Means of gradients over workers, sent while backward still computes the others."""

from collections.abc import Iterable
from types import TracebackType

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dmlray.learn.process_group import ProcessGroup

BUCKET = 25 << 20  # bytes of one message, as torch's DistributedDataParallel has it
Parameters = list[nn.Parameter]


class GradientAverage:
    """Replace gradients by their means over the workers of a team; `finish` after each backward.

    Gradients are sent in buckets, in about the order in which backward computes them. A bucket is
    sent once all of its parameters that had a gradient in the step before have one again; what
    comes otherwise is sent by `finish`. Every worker computes gradients of the same parameters, so
    all of them send the same buckets in the same order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: ProcessGroup) -> None:
        self._team = group
        self._parameters = list(parameters)[::-1]
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._arrived)
            for parameter in self._parameters
            if parameter.requires_grad and group.size > 1
        ]
        self._expect([p for p in self._parameters if p.requires_grad])

    def __enter__(self) -> "GradientAverage":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def finish(self) -> None:
        """Send what has not been sent, and wait for all means."""
        if self._team.size == 1:
            return
        present = [p for p in self._parameters if p.grad is not None]
        for bucket in self._buckets[self._begun :]:
            self._send([p for p in bucket if p.grad is not None])
        known = {id(p) for bucket in self._buckets for p in bucket}
        self._send([p for p in present if id(p) not in known])
        for work, message, gradients in self._sent:
            work.wait()
            parts = message.div_(self._team.size).split([part.numel() for part in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        self._expect(present)

    def _expect(self, parameters: Parameters) -> None:
        """Prepare the next step, in which these are to get gradients."""
        self._buckets = _buckets(parameters, BUCKET)
        self._missing = [{id(p) for p in bucket} for bucket in self._buckets]
        self._bucket_of = {key: n for n, keys in enumerate(self._missing) for key in keys}
        self._begun = 0  # buckets
        self._sent: list[tuple[dist.Work, Tensor, list[Tensor]]] = []

    def _arrived(self, parameter: Tensor) -> None:
        number = self._bucket_of.get(id(parameter))
        if number is None:
            return
        self._missing[number].discard(id(parameter))
        while self._begun < len(self._buckets) and not self._missing[self._begun]:
            self._begun += 1
            self._send(self._buckets[self._begun - 1])

    @torch.no_grad()
    def _send(self, parameters: Parameters) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            message = torch.cat([gradient.flatten() for gradient in gradients])
            work = dist.all_reduce(message, async_op=True)
            self._sent.append((work, message, gradients))


def _buckets(parameters: Parameters, size: int) -> list[Parameters]:
    """Neighbours together, each bucket of at least `size` bytes but the last."""
    buckets: list[Parameters] = []
    filled = size
    for parameter in parameters:
        if filled >= size:
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += parameter.nbytes
    return buckets
