"""State of a training that a checkpoint stores: learner, optimizer and progress."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, Field
from torch import nn
from torch.amp import GradScaler
from torch.optim.optimizer import Optimizer

Network = TypeVar("Network", bound=nn.Module)


def _score(value: float) -> float:
    if not (value == -1 or 0 <= value <= 1 + 1e-9):
        raise ValueError(f"{value:g} is not a fraction in [0, 1]")
    return value


_Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
_Epoch = Annotated[int, Field(strict=True, ge=0, le=10_000)]  # upper bound of `budget.epochs`


@dataclass
class TrainProgress:
    """Progress of a training.

    Attributes:
        epoch: Finished epochs.
        best: Best validation score, a fraction; -1 for none.
        loss_scale: Factor of losses in float16; `unscathed` counts the steps since it changed.
    """

    epoch: _Epoch = 0
    best: Annotated[float, Field(strict=True), AfterValidator(_score)] = -1.0
    best_epoch: _Epoch = 0
    loss_scale: _Positive = 65536.0
    unscathed: Annotated[int, Field(strict=True, ge=0)] = 0


@dataclass
class TrainState(Generic[Network]):
    """A training between two epochs.

    Args:
        optimizer: None if training does not continue, such as for an evaluation.
        identity: Distinguishes trainings of the same network, such as ensemble members.
        scaler: Of float16, see `precision.Precision`; its state is part of `progress`.
    """

    learner: Network
    optimizer: Optimizer | None = None
    identity: str = ""
    scaler: GradScaler | None = None
    progress: TrainProgress = field(default_factory=TrainProgress)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint holds; with a scaler this waits for a GPU."""
        if self.scaler:
            scaling = self.scaler.state_dict()
            self.progress.loss_scale = scaling["scale"]
            self.progress.unscathed = scaling["_growth_tracker"]
        content: dict[str, Any] = {
            "learner": self.learner.state_dict(),
            "progress": dict(vars(self.progress)),
            "training": self.identity,
        }
        if self.optimizer is not None:
            content["optimizer"] = self.optimizer.state_dict()
        return content

    def set_progress(self, progress: TrainProgress) -> None:
        """Continue from `progress`, the scaler included."""
        self.progress = progress
        if self.scaler:
            known = {"scale": progress.loss_scale, "_growth_tracker": progress.unscathed}
            self.scaler.load_state_dict(self.scaler.state_dict() | known)
