"""Random layers, such as dropout and stochastic depth, with workers that share a batch."""

import torch
from torch import Tensor, nn

from dmlray.backbones import Trunk


def keep_generators_equal(learner: nn.Module, device: torch.device) -> None:
    """Set the random generators of all workers to the same state after each forward in training.

    Random layers draw per image, and workers may have different numbers of images. Later draws for
    the whole batch, such as triplets or mixed images, must be the same on every worker. A forward
    without random layers does not change the generators.

    Args:
        learner: Module whose forward is followed.
        device: Of the learner; its generator is aligned as well as that of the CPU.
    """
    for module in learner.modules():
        if isinstance(module, Trunk):
            _register_hooks(module, device)


def _register_hooks(trunk: Trunk, device: torch.device) -> None:
    before = list[list[Tensor]]()

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # stays outside of the graph
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
    """Return the generator states of the CPU and of `device`, without synchronising."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states
