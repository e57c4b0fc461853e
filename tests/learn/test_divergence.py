"""A training that is not finite ends with status 1 and the cause: data, weights, loss or lr."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dmlray.errors import RunError
from dmlray.learn.loop import Epoch, fit
from dmlray.learn.optimizer import build_optimizer
from dmlray.learn.run import run_training
from dmlray.learn.runtime import Runtime
from dmlray.learn.state import TrainState
from dmlray.learn.trainer import Training
from dmlray.methods import Batch, Learner, Outputs, ParameterGroup
from dmlray.plans.experiment import Experiment
from dmlray.plans.resolve import override, read_experiment
from dmlray.plans.run_folder import RunFolder
from tests.toy_data import draw_images, toy_words

PLAN = read_experiment(
    Path("experiments/proxy_anchor_demo.yaml"),
    ["budget.head_warmup_steps=0", "optimizer.name=sgd", "optimizer.momentum=0", "optimizer.lr=1"],
).experiment
LR = "try a smaller optimizer.lr"
Loss = Callable[[Tensor], Tensor]


class Toy(Learner):
    """Two features, with a given loss."""

    def __init__(self, loss: Loss, factor: float = 1.0) -> None:
        super().__init__()
        self._factor = factor
        self.trunk = nn.Linear(2, 2, bias=False)
        nn.init.eye_(self.trunk.weight)
        self._loss = loss

    def forward(self, batch: Batch) -> Outputs:
        return {"embeddings": self.trunk(batch.images)}

    def loss(self, outputs: Outputs, labels: Tensor) -> dict[str, Tensor]:
        return {"toy": self._loss(outputs["embeddings"])}

    def groups(self) -> list[ParameterGroup]:
        return [ParameterGroup("trunk", list(self.trunk.parameters()), self._factor)]


class Batches:
    """A few batches of ones."""

    def __init__(self, steps: int, value: float = 1.0) -> None:
        self.batches_per_epoch, self.images_per_batch, self._value = steps, 4, value

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.batches_per_epoch):
            yield torch.full((4, 2), self._value), torch.tensor([0, 0, 1, 1])


def failure(loss: Loss, steps: int = 3, value: float = 1.0, factor: float = 1.0) -> str:
    return failure_of(Toy(loss, factor), steps, value)


def failure_of(learner: Toy, steps: int = 3, value: float = 1.0) -> str:
    optimizer = build_optimizer(PLAN.optimizer, learner.groups())
    with pytest.raises(RunError) as caught:
        list(fit(TrainState(learner, optimizer), Batches(steps, value), PLAN))
    assert caught.value.exit_status == 1
    return str(caught.value)


def square_root_at_zero(rows: Tensor) -> Tensor:
    """Finite, with a gradient that is not."""
    return (rows - rows.detach()).square().sum().sqrt()


def test_a_learning_rate_that_is_too_large_is_blamed() -> None:
    message = failure(lambda rows: 50 * rows.square().sum(), steps=60)
    assert LR in message
    assert "epoch 1: the loss is not finite from step" in message


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda rows: (rows.sum() - rows.sum() - 1).log(), "step 1 of 3 on, although"),
        (square_root_at_zero, "step 1 of 3 on, its gradient first, although"),
    ],
)
def test_a_loss_that_no_learning_rate_fixes_is_blamed(loss: Loss, words: str) -> None:
    message = failure(loss)
    assert words in message
    assert "not optimizer.lr" in message
    assert LR not in message


def test_weights_and_inputs_are_blamed_before_any_step() -> None:
    learner = Toy(lambda rows: rows.sum())
    nn.init.constant_(learner.get_parameter("trunk.weight"), float("nan"))
    message = failure_of(learner)
    assert "trunk.weight is not before the first step; see backbone.weights" in message
    message = failure(lambda rows: rows.sum(), value=float("inf"))
    assert "like the network's outputs; see backbone.weights" in message
    assert LR not in message


def test_a_last_step_that_breaks_the_weights_is_a_failure() -> None:
    message = failure(lambda rows: 1e10 * rows.sum(), steps=1, factor=1e30)
    assert message.startswith("epoch 1: ")
    assert "trunk.weight is not finite after the last step" in message
    assert LR in message
    message = failure(square_root_at_zero, steps=1)
    assert "its gradient first" in message
    assert LR not in message


def test_a_gradient_that_clipping_fixes_is_not_a_failure() -> None:
    plan = override(PLAN, "test", {"optimizer.clip_value": 1.0, "budget.epochs": 1})
    learner = Toy(lambda rows: rows.sum() * 3e37)
    optimizer = build_optimizer(plan.optimizer, learner.groups())
    [epoch] = fit(TrainState(learner, optimizer), Batches(1), plan)
    assert learner.get_parameter("trunk.weight").isfinite().all()
    assert epoch.metrics["loss"] > 1e38


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.setenv("DMLRAY_CACHE", str(tmp_path / "cache"))
    words = toy_words(draw_images(tmp_path / "images"), 1)
    return read_experiment(Path("experiments/proxy_anchor_demo.yaml"), words).experiment


@pytest.mark.parametrize("selection", ["last", "validation"])
def test_embeddings_that_are_not_finite_are_never_scored(
    toy: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: str
) -> None:
    plan = override(toy, "test", {"protocol.selection": selection})
    embed = Training.embed

    def overflowing(self: Training, function: Callable[[Tensor], Tensor], subset: object) -> Tensor:
        rows = embed(self, function, subset)  # type: ignore[arg-type]
        return rows if function == self.trunk else rows / 0

    monkeypatch.setattr(Training, "embed", overflowing)
    folder, seen = RunFolder(tmp_path / "run"), list[Epoch]()
    with pytest.raises(RunError, match=r"48 of 48 embeddings|16 of 16 embeddings"):
        run_training(plan, folder, seen.append, Runtime(torch.device("cpu")))
    assert not folder.scores.exists()
    assert (selection == "last") == bool(seen)
