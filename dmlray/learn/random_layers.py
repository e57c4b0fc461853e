"""Random layers of a network, such as dropout and stochastic depth, where workers share a batch."""

import torch
from torch import Tensor, nn

from dmlray.backbones import Trunk


def keep_generators_equal(learner: nn.Module, device: torch.device) -> None:
    """Leave the random generators of all workers in one state after each pass in training.

    Random layers draw for each image, and shares of a batch differ by an image. What is drawn
    afterwards for the whole batch, such as triplets or the partners of mixed images, must be the
    same on every worker. A pass without random layers leaves the generators as they are.

    Args:
        device: Of the learner; its generator is watched beside that of the CPU.
    """
    for module in learner.modules():
        if isinstance(module, Trunk):
            _watch(module, device)


def _watch(trunk: Trunk, device: torch.device) -> None:
    before = list[list[Tensor]]()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # it stays outside of the graph
    def note(module: nn.Module, inputs: object) -> None:
        if module.training:
            before.append(_states(device))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def align(module: nn.Module, inputs: object, outputs: object) -> None:
        if not before:
            return
        start = before.pop()
        if not all(map(torch.equal, start, _states(device))):
            torch.set_rng_state(start[0])
            torch.manual_seed(int(torch.randint(2**62, ())))  # of every device

    trunk.register_forward_pre_hook(note)
    trunk.register_forward_hook(align)


def _states(device: torch.device) -> list[Tensor]:
    """Take the states of the generators of the CPU and of `device`, without waiting for it."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
