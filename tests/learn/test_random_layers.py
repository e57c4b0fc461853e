"""Workers with unequal parts of a batch make equal draws for the whole batch."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from dmlray.learn.process_group import ProcessGroup
from dmlray.learn.runtime import Runtime
from dmlray.learn.trainer import build_learner
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import read_experiment
from tests.toy_data import toy_words

WORKERS, BATCH = 3, 8  # parts of 2, 3 and 3 images


def plan_of(backbone: str) -> Experiment:
    words = [*toy_words(Path("nowhere")), f"backbone.name={backbone}"]
    return read_experiment(Path("experiments/margin_demo.yaml"), words).experiment


def draws(backbone: str, rank: int, size: int = WORKERS) -> list[Tensor]:
    """Draw after each of two forwards of one worker's part of a batch."""
    group = ProcessGroup(rank, size)
    runtime = Runtime(torch.device("cpu"), group=group)
    trunk = build_learner(plan_of(backbone), 4, runtime).train().trunk
    images = torch.zeros(BATCH, 3, 32, 32)[group.local_slice(BATCH)]
    torch.manual_seed(0)
    found = []
    for _ in range(2):
        trunk(images)
        found.append(torch.rand(4))
    return found


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "timm/test_resnet"])
def test_draws_after_a_pass_are_equal_on_all_workers(backbone: str) -> None:
    first, *others = [draws(backbone, rank) for rank in range(WORKERS)]
    for other in others:
        torch.testing.assert_close(other, first, atol=0, rtol=0)
    assert not torch.equal(first[0], first[1])


def test_a_network_without_random_layers_draws_as_one_worker() -> None:
    torch.testing.assert_close(
        draws("timm/test_resnet", 1), draws("timm/test_resnet", 0, size=1), atol=0, rtol=0
    )


def test_one_worker_draws_as_plain_torch() -> None:
    """A single worker is not affected."""
    learner = build_learner(plan_of("efficientnet_b0"), 4, Runtime(torch.device("cpu")))
    assert not any(module._forward_pre_hooks for module in learner.modules())


def test_random_layers_draw_anew_in_each_pass() -> None:
    group = ProcessGroup(0, WORKERS)
    learner = build_learner(
        plan_of("efficientnet_b0"), 4, Runtime(torch.device("cpu"), group=group)
    )
    trunk, images = learner.train().trunk, torch.rand(4, 3, 32, 32)
    torch.manual_seed(0)
    assert not torch.equal(trunk(images), trunk(images))
