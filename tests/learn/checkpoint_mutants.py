"""Checkpoints that torch reads but that hold other content, each with a name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.learn.run_mutants import Change


def stored(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the content of a checkpoint; torch can read the file."""

    def save(path: Path) -> None:
        whole = torch.load(path, weights_only=True)
        changed = change(whole)
        path.unlink()
        torch.save(whole if changed is None else changed, path)

    return save


def weight(make: Callable[[torch.Tensor], object]) -> Change:
    def change(whole: dict[str, Any]) -> None:
        name = next(iter(whole["learner"]))
        whole["learner"][name] = make(whole["learner"][name])

    return stored(change)


def progress(**values: object) -> Change:
    return stored(lambda whole: whole["progress"].update(values))


def moments(make: Callable[[dict[str, Any]], object]) -> Change:
    return stored(lambda whole: make(whole["optimizer"]))


CHECKPOINTS: dict[str, Change] = {
    "a list": stored(lambda whole: [1]),
    "no learner": stored(lambda whole: {"progress": whole["progress"]}),
    "learner a list": stored(lambda whole: {**whole, "learner": [1]}),
    "learner of numbers": weight(lambda value: 1),
    "learner with a key that is a number": stored(
        lambda whole: whole["learner"].update({1: torch.zeros(2)})
    ),
    "learner with a key more": stored(lambda whole: whole["learner"].update(x=torch.zeros(2))),
    "sparse": weight(torch.Tensor.to_sparse),
    "meta": weight(lambda value: value.to("meta")),
    "complex": weight(lambda value: value.to(torch.complex64)),
    "half": weight(torch.Tensor.half),
    "transposed": weight(lambda value: value.transpose(0, -1)[None]),
    "not a number": weight(lambda value: value * torch.nan),
    "progress a list": stored(lambda whole: {**whole, "progress": [1]}),
    "progress with a key more": progress(x=1),
    "progress of words": progress(epoch="a", best="b"),
    "epoch of 10^9": progress(epoch=10**9),
    "epoch too many": progress(epoch=3),
    "epoch not the last": progress(epoch=1, best_epoch=1),
    "epoch negative": progress(epoch=-1),
    "epoch true": progress(epoch=True),
    "epoch a tensor": progress(epoch=torch.ones(2)),
    "best not a number": progress(best=float("nan")),
    "best epoch not reached": progress(best_epoch=10_000),
    "of another training": stored(lambda whole: {**whole, "training": "seed 9"}),
    "training a number": stored(lambda whole: {**whole, "training": 9}),
}
OPTIMIZERS: dict[str, Change] = {
    "no optimizer": stored(lambda whole: {k: whole[k] for k in ("learner", "progress")}),
    "optimizer a number": stored(lambda whole: {**whole, "optimizer": 1}),
    "optimizer of another type": stored(lambda whole: {**whole, "optimizer": {"state": 1}}),
    "no groups": moments(lambda state: state.update(param_groups=[])),
    "groups of numbers": moments(lambda state: state.update(param_groups=[1])),
    "groups of tensors": moments(
        lambda state: state["param_groups"][0].update(params=[torch.zeros(2)])
    ),
    "no state": moments(lambda state: state["state"].clear()),
    "state of a parameter more": moments(lambda state: state["state"].update({10**6: {}})),
    "state of numbers": moments(lambda state: state["state"].update({0: 3})),
    "state of another algorithm": moments(
        lambda state: state["state"].update({0: {"square_avg": torch.zeros(2)}})
    ),
    "state of another shape": moments(
        lambda state: state["state"][0].update(exp_avg=torch.zeros(2))
    ),
    "state sparse": moments(
        lambda state: state["state"][0].update(exp_avg=torch.zeros(2).to_sparse())
    ),
}
