"""DiVA's momentum encoder, an exponential moving average of a model, and the queue of its keys.

B batch, Q size of the queue, D embedding.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The last Q keys (Q, D), first in, first out; `filled` (Q,) marks the entries in use."""

    keys: Tensor
    filled: Tensor
    next: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, dim))
        self.register_buffer("filled", torch.zeros(size, dtype=torch.bool))
        self.register_buffer("next", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Add keys (B, D)."""
        keys = keys[-len(self.keys) :].to(self.keys.dtype)
        indices = (self.next + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys.index_copy_(0, indices, keys)
        self.filled.index_fill_(0, indices, True)
        self.next.add_(len(keys)).remainder_(len(self.keys))


class MomentumEncoder(nn.Module):
    """A copy of `model` without gradient, updated by an exponential moving average."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = deepcopy(model).requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "MomentumEncoder":
        """Stay in eval mode, as the authors' key network does."""
        return super().train(False)

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)

    @torch.no_grad()
    def update(self, model: nn.Module, share: float) -> None:
        """Move the copy's parameters towards the model's by `share`; 1 copies them."""
        pairs = zip(self.model.parameters(), model.parameters(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, share)
