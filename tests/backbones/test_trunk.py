import copy
from typing import Any

import pytest
import torch
from torch import nn

from dmlray.backbones import Network, Trunk
from dmlray.backbones.trunk import BatchNorm, Pooling
from dmlray.errors import ConfigError
from dmlray.input_statistics import InputStatistics

STATISTICS = InputStatistics((0.5,) * 3, (0.5,) * 3)


def small_trunk(batchnorm: BatchNorm = "train") -> Trunk:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    return Trunk(Network(module, 5, STATISTICS), batchnorm=batchnorm)


def token_trunk(pooling: Pooling) -> Trunk:
    """A network that returns its input (B, T, F) as tokens: class token, register, positions."""
    network = Network(nn.Identity(), 4, STATISTICS, prefix_tokens=2, class_token=True)
    return Trunk(network, pooling=pooling)


def moved(trunk: Trunk) -> set[str]:
    """Names of the tensors that change in one training step."""
    before = copy.deepcopy(trunk.state_dict())
    learner = nn.Sequential(trunk).train()  # as in a learner
    optimizer = torch.optim.SGD([p for p in trunk.parameters() if p.requires_grad], lr=1.0)
    weights = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    (weights * learner(torch.randn(2, 3, 8, 8)).exp()).sum().backward()
    optimizer.step()
    return {k for k, v in trunk.state_dict().items() if not torch.equal(v, before[k])}


STATISTICS_KEYS = {f"network.1.{n}" for n in ("running_mean", "running_var", "num_batches_tracked")}
AFFINE_KEYS = {"network.1.weight", "network.1.bias"}
CONVOLUTION_KEYS = {"network.0.weight", "network.0.bias"}


@pytest.mark.parametrize(
    ("batchnorm", "expected"),
    [
        ("train", STATISTICS_KEYS | AFFINE_KEYS),
        ("frozen_statistics", AFFINE_KEYS),
        ("frozen", set()),
    ],
)
def test_frozen_batchnorm_never_moves(batchnorm: BatchNorm, expected: set[str]) -> None:
    assert moved(small_trunk(batchnorm)) - CONVOLUTION_KEYS == expected


def test_frozen_batchnorm_still_lets_the_rest_train_and_drop() -> None:
    trunk = small_trunk("frozen")
    trunk.network.add_module("2", nn.Dropout())
    assert trunk.train().network.get_submodule("2").training
    assert not trunk.network.get_submodule("1").training
    assert not trunk.eval().network.get_submodule("2").training
    assert "network.0.weight" in moved(trunk)


def test_frozen_statistics_are_used_while_training() -> None:
    trunk, images = small_trunk("frozen_statistics"), torch.randn(2, 3, 8, 8)
    training = trunk.train()(images)
    torch.testing.assert_close(training, trunk.eval()(images))


def test_pooling_of_maps() -> None:
    maps = torch.randn(2, 4, 3, 5)
    network = Network(nn.Identity(), 4, STATISTICS)
    average, largest = maps.mean((2, 3)), maps.amax((2, 3))
    both = average + largest
    known: list[tuple[Pooling, torch.Tensor]] = [
        ("avg", average),
        ("max", largest),
        ("avg+max", both),
    ]
    for pooling, expected in known:
        for layout in (torch.contiguous_format, torch.channels_last):
            found = Trunk(network, pooling=pooling)(maps.to(memory_format=layout))
            torch.testing.assert_close(found, expected)


def test_one_of_several_equal_maxima_gets_the_gradient() -> None:
    maps = torch.ones(1, 1, 2, 2, requires_grad=True)
    Trunk(Network(nn.Identity(), 1, STATISTICS), pooling="max")(maps).sum().backward()
    assert sorted(maps.grad.flatten().tolist()) == [0.0, 0.0, 0.0, 1.0]


def test_pooling_of_tokens_leaves_out_class_token_and_registers() -> None:
    tokens = torch.randn(2, 8, 4)
    torch.testing.assert_close(token_trunk("cls")(tokens), tokens[:, 0])
    torch.testing.assert_close(token_trunk("avg")(tokens), tokens[:, 2:].mean(1))
    torch.testing.assert_close(token_trunk("max")(tokens), tokens[:, 2:].amax(1))


def test_a_look_at_the_image_size_leaves_no_trace() -> None:
    trunk = small_trunk().train()
    before = copy.deepcopy(trunk.state_dict())
    trunk.check_size(8)
    assert trunk.training
    assert trunk.network.get_submodule("1").training
    assert all(torch.equal(tensor, before[key]) for key, tensor in trunk.state_dict().items())
    assert all(parameter.requires_grad for parameter in trunk.parameters())


def test_images_smaller_than_the_network_needs_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data.transform.size: 2 does not suit this backbone"):
        small_trunk().check_size(2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pooling": "cls"}, "class token. Allowed here: avg, max, avg\\+max"),
        ({"pooling": "mean"}, "backbone.pooling: 'mean' is not allowed. Allowed: avg, max"),
        ({"batchnorm": "off"}, "backbone.batchnorm: 'off' is not allowed. Allowed: train"),
    ],
)
def test_impossible_options_say_what_is_allowed(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Trunk(Network(nn.Identity(), 4, STATISTICS), **options)
