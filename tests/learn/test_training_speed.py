import pytest

from dmlray.learn.training_speed import images_per_second
from dmlray.plans.experiment import BackboneConfig, BudgetConfig


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_any_backbone_is_timed_without_its_weights(precision: str) -> None:
    backbone = BackboneConfig(name="timm/test_resnet", batchnorm="frozen_statistics")
    assert 0 < images_per_second(backbone, 32, 4, BudgetConfig(precision=precision)) < 1e9
