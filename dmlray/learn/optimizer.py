"""Optimizer over parameter groups, and its learning rate schedule."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW, RMSprop
from torch.optim.optimizer import Optimizer as TorchOptimizer

from dmlray.methods import ParameterGroup
from dmlray.plans.experiment import OptimizerConfig


def build_optimizer(plan: OptimizerConfig, groups: Sequence[ParameterGroup]) -> TorchOptimizer:
    """Build one optimizer over all groups; each group has its name and base learning rate.

    On a GPU a fused kernel updates all parameters at once.
    """
    settings: list[dict[str, Any]] = [
        {
            "params": group.parameters,
            "lr": plan.lr * group.factor,
            "base_lr": plan.lr * group.factor,
            "weight_decay": plan.weight_decay if group.weight_decay is None else group.weight_decay,
            "name": group.name,
        }
        for group in groups
        if group.parameters
    ]
    fused = _on_gpu(groups) or None
    match plan.name:
        case "adamw":
            return AdamW(settings, fused=fused)
        case "adam":
            return Adam(settings, fused=fused)
        case "sgd":
            return SGD(settings, momentum=plan.momentum, fused=fused)
        case "rmsprop":  # torch has no fused one
            return RMSprop(settings, momentum=plan.momentum, foreach=fused)


def _on_gpu(groups: Sequence[ParameterGroup]) -> bool:
    return all(p.device.type == "cuda" for group in groups for p in group.parameters)


def lr_factor(plan: OptimizerConfig, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Return the factor of every learning rate at the 0-based `step` of a run.

    A pure function, so that a checkpoint needs no scheduler state.
    """
    rise = min(1.0, (step + 1) / plan.warmup_steps) if plan.warmup_steps else 1.0
    epoch, share = step // steps_per_epoch, step / max(1, steps_per_epoch * epochs)
    match plan.schedule:
        case "constant":
            return rise
        case "linear":
            return rise * (1.0 - share)
        case "cosine":
            return rise * 0.5 * (1.0 + math.cos(math.pi * share))
        case "step":
            return rise * float(plan.gamma ** (epoch // plan.step_epochs))
        case "multistep":
            whole = math.floor if plan.milestone_rounding == "down" else math.ceil
            # As DREML's authors round, int(.7 * E): 0.7 * 90 is below 63.
            drops = [whole(part * epochs) - plan.early_epochs for part in plan.milestones]
            return rise * float(plan.gamma ** sum(epoch >= drop for drop in drops))


def set_lr(optimizer: TorchOptimizer, factor: float) -> None:
    """Set each group's learning rate to `factor` times its base."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def freeze_trunk(optimizer: TorchOptimizer) -> None:
    """Drop the trunk's gradients, so that this step only updates heads and proxies."""
    for group in optimizer.param_groups:
        if group["name"] == "trunk":
            for parameter in group["params"]:
                parameter.grad = None


def clip(optimizer: TorchOptimizer, plan: OptimizerConfig) -> None:
    """Clip gradients by value, then by the norm of each group, as `plan` specifies."""
    for group in optimizer.param_groups:
        present = [parameter for parameter in group["params"] if parameter.grad is not None]
        if present and plan.clip_value is not None:  # torch refuses an empty list: a frozen trunk
            torch.nn.utils.clip_grad_value_(present, plan.clip_value)
        if present and plan.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(present, plan.clip_norm)
