"""Optimizer state of a checkpoint, checked before use."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer

from dmlray.tensor_files import unusable

_MOMENTS = {  # state of each parameter after its first step
    "Adam": {"step", "exp_avg", "exp_avg_sq"},
    "AdamW": {"step", "exp_avg", "exp_avg_sq"},
    "SGD": {"momentum_buffer"},
    "RMSprop": {"step", "square_avg", "momentum_buffer"},
}


def load_state(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load the moments of each parameter; the settings of the plan are kept."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state["state"], "param_groups": groups})


def state_problem(optimizer: Optimizer, state: object, moved: bool = True) -> str | None:
    """Return why `state` cannot be from `optimizer`, None if it can.

    `moved`: at least one step was taken; in float16 all steps of the first epochs may be skipped.
    """
    return next(_problems(optimizer, state, moved), None)


def _problems(optimizer: Optimizer, state: object, moved: bool) -> Iterator[str]:
    if state is None:
        yield "it has no optimizer state"
    elif not isinstance(state, dict) or not isinstance(state.get("state"), dict):
        yield "optimizer: has another type"
    elif _numbers(state.get("param_groups")) != _numbers(optimizer.state_dict()["param_groups"]):
        yield "optimizer: has other parameter groups"
    elif moved and _expected(optimizer) and not state["state"]:
        yield "optimizer: has no state"
    else:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        for number, moments in state["state"].items():
            if type(number) is not int or not 0 <= number < len(parameters):
                yield "optimizer: has the state of a parameter that does not exist"
            else:
                problems = _of_one(parameters[number], moments, _expected(optimizer))
                yield from (f"optimizer: parameter {number} {problem}" for problem in problems)


def _numbers(groups: Any) -> list[list[int]] | None:
    """Return the parameter numbers of each group, None if the types are wrong."""
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        return None
    numbers = [group.get("params") for group in groups]
    whole = all(isinstance(n, list) and all(type(i) is int for i in n) for n in numbers)
    return numbers if whole else None


def _expected(optimizer: Optimizer) -> set[str]:
    """Return the names of a parameter's moments."""
    names = _MOMENTS[type(optimizer).__name__]
    return names if optimizer.defaults.get("momentum", 1) else names - {"momentum_buffer"}


def _of_one(parameter: Tensor, moments: object, expected: set[str]) -> Iterator[str]:
    if not isinstance(moments, dict):
        yield "has a state of another type"
        return
    held = {name: value for name, value in moments.items() if value is not None}
    if held and held.keys() != expected:
        names = ", ".join(sorted(expected))
        yield f"has the state of another algorithm. Allowed: {names}"
        return
    for name, value in held.items():
        shape = () if name == "step" else parameter.shape
        if problem := unusable(value):
            yield f"has a {name} that {problem}"
        elif value.shape != shape or not value.is_floating_point():
            kind = f"{value.dtype} {tuple(value.shape)}"
            yield f"has a {name} of {kind}, expected {tuple(shape)} of floating point"
