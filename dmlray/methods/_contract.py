"""What every method promises to the loop that trains it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from dmlray.knobs import Knobs, Value

Outputs = dict[str, Tensor]


class Batch(NamedTuple):
    """images (B, 3, H, W) normalised as the trunk wants them; labels (B,) in [0, C)."""

    images: Tensor
    labels: Tensor


class Group(NamedTuple):
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


class Trunk(Protocol):
    """A backbone: images (B, 3, H, W) -> pooled features (B, F)."""

    width: int

    def __call__(self, images: Tensor) -> Tensor: ...


@runtime_checkable
class Learner(Protocol):
    """A plain `nn.Module` with these methods.

    `forward` gives per-sample tensors (B, ...) and `loss` the named terms whose sum is minimised,
    so that a run on several devices can gather the samples in between.
    Optional hooks: `start_epoch(epoch)` and `after_step()`.
    """

    def __init__(self, config: Knobs, trunk: nn.Module, width: int, classes: int) -> None: ...

    def forward(self, batch: Batch) -> Outputs: ...

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]: ...

    def embed(self, images: Tensor) -> Tensor: ...

    def groups(self) -> list[Group]: ...
