"""Gradients equal those of one message, and are sent before backward ends."""

from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from dmlray.learn import gradient_average
from dmlray.learn.gradient_average import GradientAverage
from dmlray.learn.process_group import SINGLE_PROCESS, ProcessGroup

TWO = ProcessGroup(0, 2)


class Sent:
    """A fake all-reduce with a second worker with equal gradients; done at `wait`."""

    def __init__(self, message: Tensor) -> None:
        self._message = message

    def wait(self) -> None:
        self._message.mul_(2)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all messages, in order."""
    found = list[int]()

    def all_reduce(message: Tensor, async_op: bool) -> Sent:
        assert async_op
        found.append(message.numel())
        return Sent(message)

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    return found


def network() -> nn.ModuleList:
    torch.manual_seed(0)
    return nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(4))


def backward(layers: nn.ModuleList, used: tuple[int, ...]) -> dict[str, Tensor]:
    """Run backward through the layers `used`; return the gradients before averaging."""
    rows = torch.arange(8.0).view(2, 4)
    copy = network()
    for module in (copy, layers):
        module.zero_grad()
        found = rows
        for number in used:
            found = module[number](found).tanh()
        found.sum().backward()
    return {name: p.grad for name, p in copy.named_parameters() if p.grad is not None}


def gradients(layers: nn.ModuleList) -> dict[str, Tensor]:
    return {name: p.grad for name, p in layers.named_parameters() if p.grad is not None}


STEPS: list[tuple[int, ...]] = [(0, 1, 2, 3), (0, 1, 2, 3), (0, 2), (0, 2), (1, 2, 3), (3, 0), (1,)]


@pytest.mark.parametrize("bucket", [1, 64, 100, 200, 1 << 20])
def test_each_gradient_is_averaged_once_in_every_step(
    bucket: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_average, "BUCKET", bucket)
    layers = network()
    with GradientAverage(layers.parameters(), TWO) as average:
        for used in STEPS:  # which parameters have gradients changes from step to step
            sizes.clear()
            expected = backward(layers, used)
            average.finish()
            torch.testing.assert_close(gradients(layers), expected, atol=0, rtol=0)
            assert sum(sizes) == 16 * len(used)


def test_the_last_layers_are_sent_while_the_first_ones_are_computed(
    sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gradient_average, "BUCKET", 64)
    layers, seen = network(), dict[int, int]()

    def note(number: int) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            seen[number] = len(sizes)

        return hook

    with GradientAverage(layers.parameters(), TWO) as average:
        for number, layer in enumerate(layers):
            layer.get_parameter("weight").register_hook(note(number))  # before it is accumulated
        backward(layers, (0, 1, 2, 3))
        assert seen == {3: 0, 2: 1, 1: 2, 0: 3}
        assert len(sizes) == 4
        average.finish()
        assert len(sizes) == 4


def test_unfrozen_parameters_are_averaged_too(sizes: list[int]) -> None:
    layers = network()
    layers[1].requires_grad_(False)
    with GradientAverage(layers.parameters(), TWO) as average:
        layers[1].requires_grad_(True)
        for _ in range(2):
            expected = backward(layers, (0, 1, 2, 3))
            average.finish()
            torch.testing.assert_close(gradients(layers), expected, atol=0, rtol=0)


def test_hooks_are_removed_and_one_worker_has_none(sizes: list[int]) -> None:
    layers = network()
    with GradientAverage(layers.parameters(), TWO):
        pass
    backward(layers, (0, 1, 2, 3))
    with GradientAverage(layers.parameters(), SINGLE_PROCESS) as average:
        expected = backward(layers, (0, 1, 2, 3))
        average.finish()
    torch.testing.assert_close(gradients(layers), expected, atol=0, rtol=0)
    assert not sizes
