"""One training step: forward, loss, backward and update, without synchronising."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.optim.optimizer import Optimizer as TorchOptimizer

from dmlray.learn.divergence import StepNorms
from dmlray.learn.gradient_average import GradientAverage
from dmlray.learn.optimizer import clip, freeze_trunk
from dmlray.learn.precision import precision_of
from dmlray.methods import Batch, Learner, Outputs
from dmlray.plans.experiment import Experiment


@dataclass(frozen=True)
class Update:
    """How the gradients of a step are averaged, scaled and applied."""

    freeze_trunk: bool = False
    scaler: GradScaler | None = None  # of float16; it skips steps whose gradients overflow
    average: GradientAverage | None = None  # over the workers that share the batch


_PLAIN = Update()


def step(
    learner: Learner,
    batch: Batch,
    optimizer: TorchOptimizer,
    plan: Experiment,
    update: Update = _PLAIN,
    norms: StepNorms | None = None,
) -> dict[str, Tensor]:
    """Take one step on a batch; give the loss terms, detached.

    Each worker computes its part of a shared batch, and the loss gets all parts. Nothing here reads
    a number back from the device, so that a GPU always has kernels queued; `norms` records the
    norms from which the cause of a loss that is not finite is found later.
    """
    outputs = forward(learner, batch, plan)
    gathered = {name: batch.gather(rows) for name, rows in outputs.items()}
    terms = learner.loss(gathered, batch.gather(batch.labels))
    optimizer.zero_grad()
    loss = torch.stack(list(terms.values())).sum()
    scaler = update.scaler
    with precision_of(plan.budget, batch.images.device).train():
        (scaler.scale(loss) if scaler else loss).backward()
    if update.average:
        update.average.finish()
    if update.freeze_trunk:
        freeze_trunk(optimizer)
    if scaler:
        scaler.unscale_(optimizer)
    clip(optimizer, plan.optimizer)
    if norms is not None:
        norms.add(gathered, loss, learner.parameters(), may_overflow=scaler is not None)
    _apply(optimizer, scaler)
    learner.after_step()
    return {name: term.detach() for name, term in terms.items()}


def _apply(optimizer: TorchOptimizer, scaler: GradScaler | None) -> None:
    if scaler is None:
        optimizer.step()
        return
    scaler.step(optimizer)
    scaler.update()


def forward(learner: Learner, batch: Batch, plan: Experiment) -> Outputs:
    """Compute the learner's outputs in the plan's precision; return them in float32."""
    computing = precision_of(plan.budget, batch.images.device)
    with computing.train(), computing.autocast():
        outputs: Outputs = learner(batch)
    halves = (torch.bfloat16, torch.float16)
    return {n: rows.float() if rows.dtype in halves else rows for n, rows in outputs.items()}
