"""Schedules equal those of torch and of the authors; groups keep their factors."""

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from dmlray.learn.optimizer import build_optimizer, clip, freeze_trunk, lr_factor, set_lr
from dmlray.methods import ParameterGroup
from dmlray.plans.experiment import OptimizerConfig
from tests.golden_vectors import files, load

RECIPES = {
    "leftthomas": {"milestones": (0.5, 0.7), "gamma": 0.1, "early_epochs": 1},
    "littleredxh2020": {"milestones": (0.5, 0.8), "gamma": 0.01},
    "littleredxh2018": {"milestones": (0.5, 0.8), "gamma": 0.1, "milestone_rounding": "up"},
}


def factors(plan: OptimizerConfig, epochs: int) -> list[float]:
    return [lr_factor(plan, epoch, 1, epochs) for epoch in range(epochs)]


@pytest.mark.parametrize("path", files("rcdml_dreml", "lr_schedules*.npz"))
def test_schedules_equal_the_authors_lists(path: Path) -> None:
    for name, rates in load(path).items():
        base = 1e-2 if name.startswith("littleredxh") else 1e-4
        if found := re.match(r"rcdml_step(\d+)_gamma([\d.]+)", name):
            plan = OptimizerConfig(
                schedule="step", step_epochs=int(found[1]), gamma=float(found[2])
            )
        elif found := re.match(r"([a-z0-9]+)_E(\d+)", name):
            plan = OptimizerConfig(schedule="multistep", **RECIPES[found[1]])
        else:
            pytest.fail(f"{path.name} holds {name}, which no schedule claims")
        np.testing.assert_allclose(base * np.array(factors(plan, len(rates))), rates, rtol=1e-9)


@pytest.mark.parametrize(
    ("epochs", "expected"),
    [(1, [0.01]), (2, [0.01] * 2), (3, [0.1, 0.01, 0.01]), (4, [1.0, 0.01, 0.01, 0.01])],
)
def test_short_runs_of_leftthomas_collapse_as_the_official_code_does(
    epochs: int, expected: list[float]
) -> None:
    plan = OptimizerConfig(schedule="multistep", **RECIPES["leftthomas"])
    assert factors(plan, epochs) == pytest.approx(expected)


def test_cosine_and_linear_fall_from_one_to_nearly_zero() -> None:
    for schedule in ("cosine", "linear"):
        rates = factors(OptimizerConfig(schedule=schedule), 100)
        assert rates[0] == 1.0
        assert all(a > b for a, b in pairwise(rates))
        assert 0 < rates[-1] < 0.02


def test_cosine_equals_torch() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    for epoch in range(10):
        factor = lr_factor(OptimizerConfig(schedule="cosine"), epoch, 1, 10)
        assert factor == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_warm_up_rises_step_by_step() -> None:
    plan = OptimizerConfig(warmup_steps=4)
    assert [lr_factor(plan, step, 10, 1) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def groups() -> tuple[list[ParameterGroup], nn.Parameter, nn.Parameter]:
    trunk, head = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    return (
        [ParameterGroup("trunk", [trunk]), ParameterGroup("head", [head], 10.0, weight_decay=0.0)],
        trunk,
        head,
    )


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd", "rmsprop"])
def test_each_group_keeps_its_factor_and_decay(name: str) -> None:
    optimizer = build_optimizer(OptimizerConfig(name=name, lr=0.01, weight_decay=0.1), groups()[0])
    set_lr(optimizer, 0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.005, 0.05])
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.0]


def test_a_frozen_trunk_does_not_move_nor_decay() -> None:
    parts, trunk, head = groups()
    optimizer = build_optimizer(OptimizerConfig(name="adamw", weight_decay=0.5), parts)
    trunk.grad, head.grad = torch.ones(3), torch.ones(3)
    freeze_trunk(optimizer)
    optimizer.step()
    assert torch.equal(trunk, torch.ones(3))
    assert not torch.equal(head, torch.ones(3))


def test_clipping_is_by_value_then_by_the_norm_of_each_group() -> None:
    parts, trunk, head = groups()
    trunk.grad, head.grad = torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.1, 0.0, 0.0])
    clip(build_optimizer(OptimizerConfig(), parts), OptimizerConfig(clip_value=3.0, clip_norm=1.0))
    torch.testing.assert_close(trunk.grad, torch.tensor([3.0, 3.0, 0.0]) / 18**0.5)
    torch.testing.assert_close(head.grad, torch.tensor([0.1, 0.0, 0.0]))


def test_a_frozen_trunk_is_not_clipped() -> None:
    parts, _, head = groups()
    head.grad = torch.tensor([3.0, 0.0, 0.0])
    clip(build_optimizer(OptimizerConfig(), parts), OptimizerConfig(clip_value=2.0, clip_norm=1.0))
    torch.testing.assert_close(head.grad, torch.tensor([1.0, 0.0, 0.0]))
