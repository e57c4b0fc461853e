"""Converting BatchNorm for several GPUs does not change evaluation."""

from typing import Any

import pytest
import torch
from torch import nn

from dmlray import backbones
from dmlray.learn.trainer import synchronise_batchnorm

NETWORKS = [  # one for each class of BatchNorm and each kind of activation in it
    "resnet18",
    "bn_inception",
    "efficientnet_lite0",
    "timm/resnetv2_50d",
    "timm/mobilenetv3_small_100",
    "timm/regnety_002",
    "timm/densenet121",
    "timm/convnext_atto",
]


@pytest.mark.parametrize("name", NETWORKS)
def test_evaluation_is_the_same_after_the_conversion(name: str) -> None:
    torch.manual_seed(0)
    trunk: Any = backbones.build(name, "none").eval()
    norms = [m for m in trunk.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 2)
        if norm.affine:
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.bias)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before, keys = trunk(images), trunk.state_dict().keys()
        converted = synchronise_batchnorm(trunk)
        after = converted(images)
    assert torch.equal(before, after)
    assert converted.state_dict().keys() == keys
    left = [m for m in converted.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(left) == len(norms)
    assert all(isinstance(m, nn.SyncBatchNorm) for m in left)
