"""Average gradients over workers while backward still computes others."""

from collections.abc import Iterable
from types import TracebackType

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dmlray.learn.process_group import ProcessGroup

BUCKET = 25 << 20  # bytes of one message, as in torch's DistributedDataParallel
Parameters = list[nn.Parameter]


class GradientAverage:
    """Replace gradients by their means over the workers of a group; `finish` after each backward.

    Gradients are sent in buckets, approximately in the order in which backward computes them. A
    bucket is sent once all of its parameters that had a gradient in the previous step have one
    again; `finish` sends the rest. Every worker computes gradients of the same parameters, so all
    of them send the same buckets in the same order.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], group: ProcessGroup) -> None:
        self._group = group
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
        """Send the remaining gradients and wait for all means."""
        if self._group.size == 1:
            return
        present = [p for p in self._parameters if p.grad is not None]
        for bucket in self._buckets[self._sent_buckets :]:
            self._send([p for p in bucket if p.grad is not None])
        known = {id(p) for bucket in self._buckets for p in bucket}
        self._send([p for p in present if id(p) not in known])
        for work, message, gradients in self._sent:
            work.wait()
            parts = message.div_(self._group.size).split([part.numel() for part in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))
        self._expect(present)

    def _expect(self, parameters: Parameters) -> None:
        """Prepare the next step, in which these parameters are expected to have gradients."""
        self._buckets = _buckets(parameters, BUCKET)
        self._missing = [{id(p) for p in bucket} for bucket in self._buckets]
        self._bucket_of = {key: n for n, keys in enumerate(self._missing) for key in keys}
        self._sent_buckets = 0
        self._sent: list[tuple[dist.Work, Tensor, list[Tensor]]] = []

    def _arrived(self, parameter: Tensor) -> None:
        number = self._bucket_of.get(id(parameter))
        if number is None:
            return
        self._missing[number].discard(id(parameter))
        while self._sent_buckets < len(self._buckets) and not self._missing[self._sent_buckets]:
            self._sent_buckets += 1
            self._send(self._buckets[self._sent_buckets - 1])

    @torch.no_grad()
    def _send(self, parameters: Parameters) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        if gradients:
            message = torch.cat([gradient.flatten() for gradient in gradients])
            work = dist.all_reduce(message, async_op=True)
            self._sent.append((work, message, gradients))


def _buckets(parameters: Parameters, size: int) -> list[Parameters]:
    """Group consecutive parameters; each bucket but the last has at least `size` bytes."""
    buckets: list[Parameters] = []
    filled = size
    for parameter in parameters:
        if filled >= size:
            buckets.append([])
            filled = 0
        buckets[-1].append(parameter)
        filled += parameter.nbytes
    return buckets
