"""One training step: forward, loss, backward and the optimizer's move, without waiting for any."""

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer as TorchOptimizer

from dmlray.learn.divergence import StepNorms
from dmlray.learn.optimizer import clip, rest_trunk
from dmlray.learn.team import ALONE, Team
from dmlray.methods import Batch, Learner, Outputs
from dmlray.plans.experiment import Experiment


def step(
    learner: Learner,
    images: Tensor,
    labels: Tensor,
    optimizer: TorchOptimizer,
    plan: Experiment,
    team: Team = ALONE,
    trunk_rests: bool = False,
    norms: StepNorms | None = None,
) -> dict[str, Tensor]:
    """Take one step on images (B, 3, H, W) and labels (B,); give the loss terms, detached.

    A team's workers see a part of each batch each, and the loss sees them all. Nothing here reads
    a number back from the device, so that a GPU always has its next kernels waiting; `norms`
    collects what shows afterwards where a number stopped being finite.
    """
    outputs = forward(learner, Batch(images, labels, team.gather, team.own(len(images))), plan)
    everyone = {name: team.gather(rows) for name, rows in outputs.items()}
    terms = learner.loss(everyone, team.gather(labels))
    optimizer.zero_grad()
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    team.average_gradients(learner.parameters())
    if trunk_rests:
        rest_trunk(optimizer)
    clip(optimizer, plan.optimizer)
    if norms is not None:
        norms.add(outputs, loss, learner.parameters())
    optimizer.step()
    call(learner, "after_step")
    return {name: term.detach() for name, term in terms.items()}


def forward(learner: Learner, batch: Batch, plan: Experiment) -> Outputs:
    """The learner's outputs, computed in the plan's precision and given in float32."""
    bfloat16 = plan.budget.precision == "bfloat16"
    with torch.autocast(batch.images.device.type, torch.bfloat16, enabled=bfloat16):
        outputs: Outputs = learner(batch)
    return {
        name: rows.float() if rows.dtype == torch.bfloat16 else rows
        for name, rows in outputs.items()
    }


def call(learner: Learner, hook: str, *arguments: int) -> None:
    """A hook, where the method has it."""
    if hasattr(learner, hook):
        getattr(learner, hook)(*arguments)
