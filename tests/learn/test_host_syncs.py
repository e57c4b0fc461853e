"""A step never synchronises with the device: nothing in it may depend on values of tensors.

Tensors on the device `meta` have no values, so that reading one fails, wherever a GPU would have to
synchronise. With CUDA the driver checks it as well.
`pml` is exempt: its losses and miners are the library's, and read values.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from dmlray import methods
from dmlray.learn.divergence import StepNorms
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.step import step
from dmlray.methods import Batch
from dmlray.plans.experiment import Experiment, MethodConfig, OptimizerConfig
from tests.toy_trunk import ToyTrunk

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
    pytest.param(name, settings, id=f"{name} {'-'.join(map(str, settings.values()))}".strip())
    for name in methods.names()
    if name != "pml"
    for settings in VARIANTS.get(name, [{}])
]


def take_steps(device: str, name: str, settings: dict[str, Any]) -> None:
    """Take two steps; in the second, queues are full and optimizers have state."""
    method = methods.load(name)
    config = method.Config(**settings)
    plan = Experiment(
        method=MethodConfig(name=name, config=config),
        optimizer=OptimizerConfig(clip_value=10.0, clip_norm=10.0),
    )
    learner = method.Learner(config, ToyTrunk(SIDE, WIDTH), WIDTH, CLASSES).to(device).train()
    optimizer = build_optimizer(plan.optimizer, learner.groups())
    views = (2,) if learner.views == 2 else ()
    images = torch.randn(BATCH, *views, 3, SIDE, SIDE, device=device)
    labels = torch.arange(BATCH, device=device) % CLASSES
    targets = torch.randn(BATCH, 8, device=device)
    learner.start_epoch(0)
    norms = StepNorms()
    with waiting_fails(device):
        for _ in range(2):
            terms = step(
                learner, Batch(images, labels, targets=targets), optimizer, plan, norms=norms
            )
    assert all(term.device.type == device and not term.dim() for term in terms.values())


@contextmanager
def waiting_fails(device: str) -> Iterator[None]:
    """Make synchronisation an error on a GPU; `meta` needs no switch."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        if device == "cuda":
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_no_step_reads_values_of_a_tensor(
    name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch, "autocast", lambda *_, **__: nullcontext()
    )  # not available on `meta`
    take_steps("meta", name, settings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_no_step_waits_for_a_gpu(name: str, settings: dict[str, Any]) -> None:
    take_steps("cuda", name, settings)


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
