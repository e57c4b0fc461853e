"""Training speed of a backbone on this machine, measured on random images."""

import time

import torch

from dmlray import backbones
from dmlray.learn.device import default_device
from dmlray.learn.precision import precision_of
from dmlray.plans.experiment import BackboneConfig, BudgetConfig

_WARM, _STEPS = 2, 3


def images_per_second(
    backbone: BackboneConfig, size: int, batch_size: int, budget: BudgetConfig
) -> float:
    """Time forward and backward passes on this process's device; weights are random.

    Args:
        backbone: Network to time.
        size: Side of the images, pixels.
        batch_size: Images of a batch.
        budget: Names the precision.

    Raises:
        ResourceError: If torch cannot use the GPU.
    """
    device = default_device()
    trunk = backbones.build(backbone.name, "none", backbone.pooling, backbone.batchnorm)
    trunk.to(device).train()
    images = torch.rand(batch_size, 3, size, size, device=device)
    precision = precision_of(budget, device)
    with precision.train():
        for step in range(_WARM + _STEPS):
            if step == _WARM:
                started = now(device)
            with precision.autocast():
                features = trunk(images)
            features.float().square().mean().backward()
    return _STEPS * batch_size / (now(device) - started)


def now(device: torch.device) -> float:
    """Seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
