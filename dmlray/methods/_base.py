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
    """Base class of every method's `Learner`: what the training loop calls.

    `forward(batch)` returns per-sample tensors (B, ...) and `loss` the named terms whose sum is
    minimised: a training on several devices gathers the samples in between. Images are read only
    through `trunk`, which is replaced by an identity while heads warm up on its features.
    A `Config` whose loss learns nothing from a class with one image in the batch has
    `needs_pairs` true.

    Attributes:
        views: Crops of each training image; with more than one, images are (B, V, 3, H, W).
    """

    trunk: nn.Module
    views: int = 1

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Compute the named terms, scalars, over the outputs of the whole batch; labels (B,)."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to unit vectors (B, D)."""
        raise NotImplementedError

    def groups(self) -> list[ParameterGroup]:
        """Return every trainable parameter in exactly one group."""
        raise NotImplementedError

    def initialise_head(self, features: Tensor) -> None:
        """Hook: start the head from the frozen trunk's features (N, F) of all training images."""

    def start_epoch(self, epoch: int) -> None:
        """Hook: called before each epoch, counted from 0."""

    def after_step(self) -> None:
        """Hook: called after each step of the optimizer; must not wait for the device."""

    def metrics(self) -> dict[str, float]:
        """Hook: return numbers to log after each epoch, such as the share of each branch."""
        return {}
