"""Interface between methods and the training loop."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from dmlray.distributions import Value

Outputs = dict[str, Tensor]


def _identity(rows: Tensor) -> Tensor:
    return rows


class Batch(NamedTuple):
    """images (B, 3, H, W), normalised for the trunk; labels (B,) in [0, C).

    `targets` (B, R): vectors of the same images by a teacher, of a method that learns from one.

    If several devices share a batch, this is one device's part: `gather` returns the rows of all
    devices, and `local_slice` selects this part of them.
    """

    images: Tensor
    labels: Tensor
    gather: Callable[[Tensor], Tensor] = _identity
    local_slice: slice = slice(None)
    targets: Tensor | None = None


class ParameterGroup(NamedTuple):
    """Parameters that share a learning rate: `factor` times the run's, unitless.

    The group named `trunk` is frozen during warm-up. `weight_decay` None means the run's.
    """

    name: str
    parameters: list[nn.Parameter]
    factor: float = 1.0
    weight_decay: float | None = None


@dataclass(frozen=True)
class Published:
    """The authors' settings for one data set (dotted key -> value), their scores and the source."""

    settings: Mapping[str, Value]
    scores: Mapping[str, float] = field(default_factory=dict)
    source: str = ""


@runtime_checkable
class LibraryLoss(Protocol):
    """A `Config` whose loss comes from a library and may fail on some batches."""

    @property
    def names(self) -> str:
        """Names of the loss and its miner."""

    def attempt(self, labels: Tensor, equal: bool = False) -> str | None:
        """Return why the loss fails on a batch with labels (B,); None if it does not."""


class Learner(nn.Module):
    """Base class of every method's `Learner`: the interface for the training loop.

    `forward(batch)` returns per-sample tensors (B, ...) and `loss` the named terms whose sum is
    minimised: training on several devices gathers the samples in between. Images are read only
    through `trunk`, which is replaced by an identity while heads warm up on its features.
    A `Config` whose loss needs two images of a class in a batch has `needs_pairs` true; one that
    learns from a teacher has `teacher`, the path of its model.

    Attributes:
        views: Crops of each training image; with more than one, images are (B, V, 3, H, W).
    """

    trunk: nn.Module
    views: int = 1

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Compute the named scalar terms over the outputs of the whole batch; labels (B,)."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to unit vectors (B, D)."""
        raise NotImplementedError

    def groups(self) -> list[ParameterGroup]:
        """Return every trainable parameter in exactly one group."""
        raise NotImplementedError

    def initialise_head(self, features: Tensor) -> None:
        """Hook: initialise the head from the frozen trunk's features (N, F) of all images."""

    def start_epoch(self, epoch: int) -> None:
        """Hook: called before each epoch, counted from 0."""

    def after_step(self) -> None:
        """Hook: called after each step of the optimizer; must not wait for the device."""

    def metrics(self) -> dict[str, float]:
        """Hook: return values to log after each epoch, such as the share of each branch."""
        return {}
