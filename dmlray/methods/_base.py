"""What every method promises to the loop that trains it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from dmlray.distributions import Value

Outputs = dict[str, Tensor]


def _all_there_is(rows: Tensor) -> Tensor:
    return rows


class Batch(NamedTuple):
    """images (B, 3, H, W) normalised as the trunk wants them; labels (B,) in [0, C).

    Where several devices share a batch, this is one's part: `gather` gives the rows of all, and
    `own` says which of them are these.
    """

    images: Tensor
    labels: Tensor
    gather: Callable[[Tensor], Tensor] = _all_there_is
    local_slice: slice = slice(None)


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate: `factor` times the run's, unitless.

    The group named `trunk` rests during warm-up. `weight_decay` None means the run's.
    """

    name: str
    parameters: list[nn.Parameter]
    factor: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class Published:
    """The authors' settings for one data set (dotted key -> value), their scores, the source."""

    settings: Mapping[str, Value]
    scores: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@runtime_checkable
class LibraryLoss(Protocol):
    """A `Config` whose loss comes from a library, and may fail on some batches."""

    @property
    def names(self) -> str:
        """Of the loss and what belongs to it."""

    def attempt(self, labels: Tensor, equal: bool = False) -> str | None:
        """Why the loss fails on a batch of these labels (B,), where it does."""


class Learner(nn.Module):
    """What the loop may rely on; a method's own `Learner` is a plain `nn.Module` of this shape.

    `forward` gives per-sample tensors (B, ...) and `loss` the named terms whose sum is minimised,
    so that a run on several devices can gather the samples in between. Images are touched only
    through `trunk`, which steps aside while heads warm up. `views` crops of each image are given,
    as images (B, V, 3, H, W) where there is more than one.
    A `Config` whose loss learns nothing about a class that is alone in its batch has
    `needs_pairs` true.
    Optional hooks: `initialise_head(features)`, `start_epoch(epoch)`, `after_step()`, `watch()`.
    """

    trunk: nn.Module
    views: int

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Named scalars over the batch."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors (B, D)."""
        raise NotImplementedError

    def groups(self) -> list[ParameterGroup]:
        """Every trainable parameter in exactly one group."""
        raise NotImplementedError
