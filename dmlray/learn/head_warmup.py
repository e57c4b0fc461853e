"""Heads before trunk: a start that does not first make the embedding worse.

The trunk is frozen, so its features are computed once; steps on them cost next to nothing.
"""

import numpy as np
import torch
from torch import nn

from dmlray.data.batches.loader import BatchLoader
from dmlray.data.batches.samplers import per_class, shuffled
from dmlray.learn.embed import embed
from dmlray.learn.optimizer import build_optimizer, set_lr
from dmlray.learn.process_group import SINGLE_PROCESS, ProcessGroup
from dmlray.methods import Batch, Learner
from dmlray.plans.experiment import Experiment


def warm_up_heads(
    learner: Learner,
    loader: BatchLoader,
    labels: np.ndarray,
    plan: Experiment,
    group: ProcessGroup = SINGLE_PROCESS,
) -> None:
    """Train everything but the trunk on its features for `budget.head_warmup_steps` steps.

    A learner with `initialise_head(features)` first gets to see all features (N, F).
    The trunk steps aside for an identity, so a method's own forward and loss are used unchanged.
    A team shares the features; the steps, which cost next to nothing, each worker takes alone.
    """
    torch.manual_seed(plan.seed)  # whoever else trains in this process
    steps = plan.budget.head_warmup_steps
    trunk = learner.trunk
    features = embed(
        learner, trunk, loader, group, plan.budget.compile
    ).clone()  # leave inference mode
    targets = torch.as_tensor(labels, device=features.device)
    learner.trunk = nn.Identity()
    try:
        learner.initialise_head(features)
        learner.train()
        heads = [group for group in learner.groups() if group.name != "trunk"]
        settings = plan.optimizer.model_copy(update={"lr": plan.budget.head_warmup_lr})
        optimizer = build_optimizer(settings, heads)
        for step, rows in enumerate(_batches(plan, labels, steps)):
            index = torch.as_tensor(rows, device=features.device)
            set_lr(optimizer, 1.0 - step / steps)
            outputs = learner(Batch(features[index], targets[index]))
            optimizer.zero_grad()
            torch.stack(list(learner.loss(outputs, targets[index]).values())).sum().backward()
            optimizer.step()
    finally:
        learner.trunk = trunk


def _batches(plan: Experiment, labels: np.ndarray, steps: int) -> list[np.ndarray]:
    """The first `steps` batches of as many passes as that takes."""
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        rng = np.random.default_rng([plan.seed, len(batches), 1])
        size, each = plan.data.batch_size, plan.data.images_per_class
        batches += per_class(labels, size, each, rng) if each else shuffled(len(labels), size, rng)
    return batches[:steps]
