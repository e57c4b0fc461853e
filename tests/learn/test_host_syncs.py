"""A step never waits for the device: nothing in it may depend on what a tensor holds.

Tensors on the device `meta` have no numbers, so whatever asks for one there fails; a GPU would
have to be waited for at the same places. With CUDA the driver itself is asked as well.
`pml` is exempt: its losses and miners are the library's, and they look at their tensors.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmlray import methods
from dmlray.learn.divergence import StepNorms
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.step import step
from dmlray.plans.experiment import Experiment, MethodConfig, OptimizerConfig

CLASSES, BATCH, SIDE, WIDTH = 6, 12, 8, 32
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "dcml": [{"mode": mode, "dim": 8} for mode in ("plain", "paper", "diva")]
    + [{"mode": "diva", "dim": 8, "sharing": sharing} for sharing in ("random", "standard")],
    "dreml": [{"recipe": "leftthomas"}, {"recipe": "authors2018"}],
    "drml": [{}, {"branch_input": "full", "edge_norm": "linear", "recon": "l2"}],
    "idml": [
        {"loss": loss, "metric": metric}
        for loss in ("proxy_anchor", "contrastive", "triplet", "margin", "multi_similarity")
        for metric in ("released", "live")
    ],
    "margin": [
        {"loss": loss, "sampling": sampling}
        for loss in ("margin", "triplet")
        for sampling in ("distance", "hard")
    ],
    "rcdml": [
        {"absent": absent, "prc_reduction": pairs, "src_reduction": images}
        for absent in ("zero", "raw")
        for pairs, images in (("sum", "sum"), ("mean_pairs", "mean"))
    ],
}
CASES = [
    pytest.param(name, knobs, id=f"{name} {'-'.join(map(str, knobs.values()))}".strip())
    for name in methods.names()
    if name != "pml"
    for knobs in VARIANTS.get(name, [{}])
]


class ToyTrunk(nn.Sequential):
    """Images (B, 3, 8, 8) -> features (B, 32)."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, WIDTH))


def take_steps(device: str, name: str, knobs: dict[str, Any]) -> None:
    """Two whole steps; the second finds queues filled and optimizers warm."""
    method = methods.load(name)
    config = method.Config(**knobs)
    plan = Experiment(
        method=MethodConfig(name=name, config=config),
        optimizer=OptimizerConfig(clip_value=10.0, clip_norm=10.0),
    )
    learner = method.Learner(config, ToyTrunk(), WIDTH, CLASSES).to(device).train()
    optimizer = build_optimizer(plan.optimizer, learner.groups())
    views = (2,) if learner.views == 2 else ()
    images = torch.randn(BATCH, *views, 3, SIDE, SIDE, device=device)
    labels = torch.arange(BATCH, device=device) % CLASSES
    learner.start_epoch(0)
    norms = StepNorms()
    with waiting_fails(device):
        for _ in range(2):
            terms = step(learner, images, labels, optimizer, plan, norms=norms)
    assert all(term.device.type == device and not term.dim() for term in terms.values())


@contextmanager
def waiting_fails(device: str) -> Iterator[None]:
    """On a GPU the driver is asked; on `meta` there is nothing to switch on."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_no_step_asks_what_a_tensor_holds(
    name: str, knobs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # not for `meta`
    take_steps("meta", name, knobs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(("name", "knobs"), CASES)
def test_no_step_waits_for_a_gpu(name: str, knobs: dict[str, Any]) -> None:
    take_steps("cuda", name, knobs)


@pytest.mark.parametrize(
    "question",
    [
        Tensor.item,
        Tensor.cpu,
        Tensor.tolist,
        Tensor.numpy,
        bool,
        float,
        Tensor.nonzero,
        lambda tensor: tensor[tensor > 0],
        lambda tensor: tensor.unique(),
    ],
)
def test_the_device_without_numbers_refuses(question: Callable[[Tensor], object]) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, TypeError)):
        question(torch.zeros(1, device="meta"))
