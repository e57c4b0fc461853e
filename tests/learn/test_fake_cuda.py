"""Fake CUDA tensors of torch: no operation mixes devices; fused optimizers update all parameters.

They have shapes, types and a device but no values, and backward needs a driver.
Of `pml` there are losses that do not read values of tensors; most of the library's do.
"""

from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from dmlray import methods
from dmlray.learn.optimizer import build_optimizer, clip
from dmlray.learn.step import forward
from dmlray.methods import Batch, idml
from dmlray.plans.experiment import BudgetConfig, Experiment, MethodConfig, OptimizerConfig
from tests.learn.test_host_syncs import BATCH, CASES, CLASSES, SIDE, WIDTH
from tests.toy_trunk import ToyTrunk

GPU = "cuda"
PML = [
    pytest.param("pml", {"loss": loss}, id=f"pml {loss}")
    for loss in ("NormalizedSoftmaxLoss", "SoftTripleLoss")
]
FAKE = FakeTensorMode()  # one for all tests: methods keep tensors of this mode between calls
pytestmark = pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning")  # for autocast


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace image mixing, which needs values, and network copies, which lose the fake mode."""

    def mixing(count: int, beta: float, device: torch.device) -> tuple[float, torch.Tensor]:
        return 0.3, torch.randperm(count, device=device)

    monkeypatch.setattr(idml, "draw_mixing", mixing)
    monkeypatch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, memo: mode, raising=False)


def learner_of(method: Any, config: Any) -> Any:
    """A learner on the GPU; what is made elsewhere is moved, for `Module.to` refuses fakes."""
    with torch.device(GPU):
        learner = method.Learner(config, ToyTrunk(SIDE, WIDTH), WIDTH, CLASSES).train()
    for module in learner.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.to(GPU))
        for name, buffer in module._buffers.items():
            module._buffers[name] = buffer.to(GPU) if buffer is not None else None
    return learner


@pytest.mark.parametrize("optimizer_name", ["adamw", "adam", "sgd", "rmsprop"])
def test_an_optimizer_on_a_gpu_moves_all_parameters_in_few_kernels(optimizer_name: str) -> None:
    with FAKE:
        method = methods.load("margin")
        learner = learner_of(method, method.Config())
        optimizer = build_optimizer(OptimizerConfig(name=optimizer_name), learner.groups())
        for parameter in learner.parameters():
            parameter.grad = torch.empty_like(parameter)
        if optimizer_name != "sgd":  # torch knows its fused step on real tensors only
            optimizer.step()
        fused = "foreach" if optimizer_name == "rmsprop" else "fused"
        assert all(group[fused] for group in optimizer.param_groups)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "settings"), CASES + PML)
def test_a_step_stays_on_its_gpu(name: str, settings: dict[str, Any], precision: str) -> None:
    method = methods.load(name)
    config = method.Config(**settings)
    plan = Experiment(
        method=MethodConfig(name=name, config=config),
        optimizer=OptimizerConfig(clip_value=10.0, clip_norm=10.0),
        budget=BudgetConfig(precision=precision),
    )
    with FAKE:
        learner = learner_of(method, config)
        views = (2,) if learner.views == 2 else ()
        images = torch.randn(BATCH, *views, 3, SIDE, SIDE, device=GPU)
        labels = torch.arange(BATCH, device=GPU) % CLASSES
        learner.start_epoch(0)
        batch = Batch(images, labels, targets=torch.randn(BATCH, 16, device=GPU))
        terms = learner.loss(forward(learner, batch, plan), labels)
        assert {(term.device.type, term.dtype) for term in terms.values()} == {(GPU, torch.float32)}
        optimizer = build_optimizer(plan.optimizer, learner.groups())
        for parameter in learner.parameters():
            parameter.grad = torch.empty_like(parameter)
        clip(optimizer, plan.optimizer)
        optimizer.step()
        with torch.no_grad():
            learner.after_step()
            embedded = learner.eval().embed(images[:, 0] if views else images)
        assert embedded.device.type == GPU
        assert len(embedded) == BATCH


def test_the_fake_refuses_a_mix_of_devices() -> None:
    with FAKE, pytest.raises(Exception, match="device"):
        torch.ones(2, device=GPU) + torch.ones(2)
