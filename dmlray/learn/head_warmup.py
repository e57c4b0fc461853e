"""Train the heads before the trunk, so that random heads do not first worsen its features."""

import numpy as np
import torch
from torch import Tensor, nn

from dmlray.data.batches.samplers import per_class, shuffled
from dmlray.learn.optimizer import build_optimizer, set_lr
from dmlray.methods import Batch, Learner
from dmlray.plans.experiment import Experiment


def warm_up_heads(
    learner: Learner,
    features: Tensor,
    labels: np.ndarray,
    plan: Experiment,
    targets: Tensor | None = None,
) -> None:
    """Train everything but the trunk on its features for `budget.head_warmup_steps` steps.

    The trunk is replaced by an identity, so that the method's own forward and loss are used. Each
    process of a group takes the steps alone: they cost next to nothing.

    Args:
        learner: Learner whose trunk stays as it is.
        features: Of all training images (N, F), with their labels (N,).
        labels: Labels (N,) of the images.
        plan: Experiment with batch size, optimizer and budget.
        targets: Vectors (N, R) of the images by a teacher, of a method that has one.
    """
    torch.manual_seed(plan.seed)  # other trainings may share this process
    steps = plan.budget.head_warmup_steps
    trunk = learner.trunk
    classes = torch.as_tensor(labels, device=features.device)
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
            taught = None if targets is None else targets[index]
            outputs = learner(Batch(features[index], classes[index], targets=taught))
            optimizer.zero_grad()
            torch.stack(list(learner.loss(outputs, classes[index]).values())).sum().backward()
            optimizer.step()
    finally:
        learner.trunk = trunk


def _batches(plan: Experiment, labels: np.ndarray, steps: int) -> list[np.ndarray]:
    """Return the first `steps` batches of as many passes as needed."""
    size, each, classes = plan.data.batch_size, plan.data.images_per_class, len(np.unique(labels))
    batches: list[np.ndarray] = []
    while len(batches) < steps:
        rng = np.random.default_rng([plan.seed, len(batches), 1])
        if each is None:
            batches += shuffled(len(labels), size, rng)
        elif plan.data.replacement == "classes" and classes * each < size:
            batches += per_class(labels, size, each, rng, "classes")
        else:  # distinct classes where there are enough, also if the training repeats them
            batches += per_class(labels, size, each, rng)
    return batches[:steps]
