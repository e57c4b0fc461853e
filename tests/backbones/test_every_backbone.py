"""The interface of every backbone of any library."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dmlray import backbones
from dmlray.backbones import Trunk
from dmlray.backbones.trunk import BatchNorm

BATCH, SIDE = 2, 64
NAMES = [*backbones.names(), "timm/vit_small_patch16_224.dino", "timm/test_efficientnet"]


@pytest.fixture(scope="module", params=NAMES)
def fresh(request: pytest.FixtureRequest) -> Trunk:
    torch.manual_seed(0)
    return backbones.build(request.param, "none", "avg+max")


@pytest.fixture
def trunk(fresh: Trunk) -> Trunk:
    return copy.deepcopy(fresh)


def images() -> Tensor:
    return torch.randn(BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def with_batchnorm(trunk: Trunk, batchnorm: BatchNorm) -> Trunk:
    network = backbones.Network(trunk.network, trunk.width, trunk.statistics, trunk.prefix_tokens)
    return Trunk(network, trunk.pooling, batchnorm).train()


def test_maps_images_to_features_of_its_width_in_any_memory_order(trunk: Trunk) -> None:
    with torch.no_grad():
        features = trunk.eval()(images())
        again = trunk.to(memory_format=torch.channels_last)(
            images().to(memory_format=torch.channels_last)
        )
    assert features.shape == (BATCH, trunk.width)
    assert features.isfinite().all()
    assert not torch.equal(features[0], features[1])
    torch.testing.assert_close(again, features, rtol=1e-3, atol=1e-3)


def test_gradients_reach_what_trains_and_frozen_batchnorm_rests(trunk: Trunk) -> None:
    trunk = with_batchnorm(trunk, "frozen")
    before = copy.deepcopy(dict(trunk.named_buffers()))
    trunk(images()).square().sum().backward()
    norms = [module for module in trunk.modules() if isinstance(module, _BatchNorm)]
    resting = {id(parameter) for norm in norms for parameter in norm.parameters()}
    for name, parameter in trunk.named_parameters():
        assert (parameter.grad is None) == (id(parameter) in resting), name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    assert all(torch.equal(buffer, before[name]) for name, buffer in trunk.named_buffers())


def test_training_batchnorm_moves_every_running_mean(trunk: Trunk) -> None:
    trunk = with_batchnorm(trunk, "train")
    norms = [module for module in trunk.modules() if isinstance(module, _BatchNorm)]
    before = [norm.running_mean.clone() for norm in norms]
    with torch.no_grad():
        trunk(images())
    assert not any(torch.equal(n.running_mean, b) for n, b in zip(norms, before, strict=True))


def test_a_state_dict_carries_everything(trunk: Trunk, fresh: Trunk) -> None:
    with torch.no_grad():
        for parameter in trunk.parameters():
            nn.init.normal_(parameter, std=0.02)
        other = copy.deepcopy(fresh).eval()
        other.load_state_dict(trunk.state_dict())
        torch.testing.assert_close(other(images()), trunk.eval()(images()))
