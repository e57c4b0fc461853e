"""Find out why a loss is not finite, from norms of each step kept on the device."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dmlray.errors import RunError
from dmlray.methods import Outputs
from dmlray.plans.experiment import Experiment

_GROWTH = 100.0  # times the first step's value: a smaller learning rate would help
_SMALLER = "try a smaller optimizer.lr"
_INPUTS = "see backbone.weights, data.transform.mean and std, and budget.precision"
_BATCH = (
    "the cause is the batch or a setting of the method, not optimizer.lr: some losses are not "
    "finite for equal images, or without two images of a class (see data.images_per_class)"
)


class Step(NamedTuple):
    """Norm of the outputs, loss and norm of the gradient of one step."""

    outputs: float
    loss: float
    gradient: float

    @property
    def finite(self) -> bool:
        """Whether all norms of the step are finite."""
        return all(map(math.isfinite, self))


class StepNorms:
    """Collects the norms of an epoch's steps without waiting for the device."""

    def __init__(self) -> None:
        self._steps: list[Tensor] = []

    @torch.no_grad()
    def add(
        self,
        outputs: Outputs,
        loss: Tensor,
        parameters: Iterable[nn.Parameter],
        may_overflow: bool = False,
    ) -> None:
        """Record one step: its loss (a scalar) and the gradients that the optimizer will use.

        `may_overflow`: a gradient that is not finite counts as 0, because its step is skipped.
        """
        rows = [rows.float() for rows in outputs.values() if rows.is_floating_point()]
        gradients = [p.grad for p in parameters if p.grad is not None]
        gradient = get_total_norm(gradients)
        if may_overflow:
            gradient = gradient.nan_to_num(0.0, 0.0, 0.0)
        norms = (get_total_norm(rows), loss, gradient)
        self._steps.append(torch.stack([norm.detach().float() for norm in norms]))

    def read(self) -> list[Step]:
        """Wait for the device and return all steps."""
        return [Step(*step) for step in torch.stack(self._steps).tolist()] if self._steps else []


def check_weights(learner: nn.Module, plan: Experiment, epoch: int) -> None:
    """Check before `epoch` that all weights are finite.

    Raises:
        RunError: If not; names the first such weight.
    """
    broken = _broken(learner)
    if not broken:
        return
    cause = "see method"
    if broken[0].startswith("trunk."):
        cause = "see backbone.weights"
    elif plan.budget.head_warmup_steps:
        cause = "try a smaller budget.head_warmup_lr"
    problem = f"the loss is not finite: {broken[0]} is not before the first step"
    raise RunError(f"epoch {epoch}: {problem}; {cause}")


def check_epoch(norms: StepNorms, learner: nn.Module, epoch: int) -> None:
    """Check that an epoch was finite; find the first step that was not, and the cause.

    A gradient alone is not a failure: an optimizer may recover from one too large to square.

    Args:
        norms: Norms of each step of the epoch.
        learner: Its weights after the last step are checked too.
        epoch: Counts from 1; no weight has changed before the first step of epoch 1.

    Raises:
        RunError: If the outputs or the loss of a step, or a weight after the last one, is not
            finite.
    """
    steps, broken = norms.read(), _broken(learner)
    if not broken and all(math.isfinite(step.outputs + step.loss) for step in steps):
        return
    failed = next((number for number, step in enumerate(steps) if not step.finite), len(steps))
    if failed == len(steps):
        problem = f"{broken[0]} is not finite after the last step"
        raise RunError(f"epoch {epoch}: {problem}; {_SMALLER}")
    cause = _cause(steps, failed, untrained=epoch == 1 and not failed)
    where = f"from step {failed + 1} of {len(steps)} on"
    raise RunError(f"epoch {epoch}: the loss is not finite {where}, {cause}")


def _cause(steps: list[Step], failed: int, untrained: bool) -> str:
    first, last, step = steps[0], steps[max(0, failed - 1)], steps[failed]
    if not math.isfinite(step.outputs):
        return f"like the network's outputs; {_INPUTS if untrained else _SMALLER}"
    if step.outputs > _GROWTH * first.outputs or last.loss > _GROWTH * max(first.loss, 1.0):
        return f"after outputs or losses grew {_GROWTH:g}-fold; {_SMALLER}"
    what = "its gradient first, " if math.isfinite(step.loss) else ""
    return f"{what}although the network's outputs are finite and have not grown; {_BATCH}"


def _broken(learner: nn.Module) -> list[str]:
    """Return the names of weights and running statistics that are not finite, in one transfer."""
    tensors = dict(learner.named_parameters()) | {
        name: tensor
        for name, tensor in learner.named_buffers()
        if name.endswith(("running_mean", "running_var"))
    }
    checks = [tensor.detach().isfinite().all() for tensor in tensors.values()]
    finite = torch.stack(checks).tolist() if checks else []
    return [name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite]
