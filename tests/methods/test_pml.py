import subprocess
import sys
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.distances import CosineSimilarity
from torch import Tensor, nn

from dmlray.errors import RunError
from dmlray.methods import Batch
from dmlray.methods.pml import Config, Learner, available

NEEDED: dict[str, dict[str, Any]] = {
    "RankedListLoss": {"margin": 0.4, "Tn": 1.0},
    "HistogramLoss": {"n_bins": 20},
}
CLASSES = 5


def toy(**settings: Any) -> tuple[Learner, Tensor, Tensor]:
    torch.manual_seed(0)
    learner = Learner(Config(dim=6, **settings), nn.Linear(10, 10), 10, CLASSES)
    labels = torch.arange(CLASSES).repeat_interleave(4)
    return learner, torch.randn(CLASSES, 10)[labels] + torch.randn(len(labels), 10), labels


def total(learner: Learner, features: Tensor, labels: Tensor) -> Tensor:
    (loss,) = learner.loss(learner(Batch(features, labels)), labels).values()
    return loss


def refusal(**settings: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        Config(**settings)
    (problem,) = caught.value.errors()
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"


def test_there_are_more_than_25_losses() -> None:
    assert len(available("losses")) > 25


@pytest.mark.parametrize("name", sorted(available("losses")))
def test_every_loss_trains_the_trunk_and_all_its_own_weights(name: str) -> None:
    learner, features, labels = toy(loss=name, loss_arguments=NEEDED.get(name, {}))
    grouped = [p for group in learner.groups() for p in group.parameters]
    assert sorted(map(id, grouped)) == sorted(map(id, learner.parameters()))
    optimizer = torch.optim.Adam(grouped, lr=1e-3)
    for _ in range(3):
        loss = total(learner, features, labels)
        assert loss.dim() == 0
        assert loss.isfinite()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for group in learner.groups():
        assert all(p.grad is not None and p.grad.isfinite().all() for p in group.parameters)
        assert any(p.grad.any() for p in group.parameters), group.name


@pytest.mark.parametrize("name", sorted(available("miners")))
def test_every_miner_feeds_a_loss(name: str) -> None:
    learner, features, labels = toy(loss="TripletMarginLoss", miner=name)
    assert total(learner, features, labels).isfinite()


def test_loss_and_miner_are_the_librarys_with_the_arguments_given() -> None:
    learner, features, labels = toy(
        loss="TripletMarginLoss",
        loss_arguments={"margin": 0.3, "distance": "CosineSimilarity"},
        miner="TripletMarginMiner",
        miner_arguments={"type_of_triplets": "semihard"},
    )
    embeddings = learner.head(learner.trunk(features))
    pairs = miners.TripletMarginMiner(type_of_triplets="semihard")(embeddings, labels)
    expected = losses.TripletMarginLoss(margin=0.3, distance=CosineSimilarity())
    torch.testing.assert_close(
        total(learner, features, labels), expected(embeddings, labels, pairs)
    )


def test_a_loss_with_weights_has_a_row_per_class_and_a_group_of_its_own() -> None:
    learner, _, _ = toy(loss="CosFaceLoss", head_lr_factor=3, loss_lr_factor=50)
    factors = {group.name: group.factor for group in learner.groups()}
    assert factors == {"trunk": 1.0, "head": 3.0, "loss": 50.0}
    assert [p.shape for p in learner.groups()[-1].parameters] == [(6, CLASSES)]


def test_a_loss_without_weights_has_no_group() -> None:
    learner, _, _ = toy(loss="CircleLoss")
    assert [group.name for group in learner.groups()] == ["trunk", "head"]


def test_learned_beta_of_the_margin_loss_gives_a_scalar() -> None:
    learner, features, labels = toy(
        loss="MarginLoss", loss_arguments={"learn_beta": True, "nu": 0.1}
    )
    loss = total(learner, features, labels)
    assert loss.dim() == 0
    assert [p.shape for p in learner.groups()[-1].parameters] == [(1,)]


def test_an_unknown_loss_is_told_the_nearest_and_all_names() -> None:
    message = refusal(loss="TripletLoss")
    assert message.startswith("loss: unknown name 'TripletLoss' among the losses. Did you mean ")
    assert "TripletMarginLoss" in message.partition("Allowed")[0]
    assert "MultiSimilarityLoss, NCALoss" in message
    assert "GenericPairLoss" not in message


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"miner": "HardMiner"}, "miner: unknown name 'HardMiner' among the miners. Did you mean"),
        (
            {"loss_arguments": {"alfa": 3}},
            "loss_arguments: MultiSimilarityLoss takes no 'alfa'. Did you mean alpha? Allowed: "
            "alpha, base, beta, distance",
        ),
        (
            {"loss": "ArcFaceLoss", "loss_arguments": {"num_classes": 3}},
            "loss_arguments: ArcFaceLoss gets num_classes from the run. Allowed: leave it out",
        ),
        (
            {"loss_arguments": {"reducer": "MeanReducer"}},
            "loss_arguments: MultiSimilarityLoss takes no 'reducer'. Allowed: alpha",
        ),
        (
            {"loss": "TripletMarginLoss", "loss_arguments": {"distance": "Cosine"}},
            "loss_arguments: unknown name 'Cosine' among the distances.",
        ),
        (
            {"miner_arguments": {"epsilon": 0.1}},
            "miner_arguments: arguments without a miner. Allowed: {}, or set a miner",
        ),
        (
            {"miner": "TripletMarginMiner", "miner_arguments": {"epsilon": 0.1}},
            "miner_arguments: TripletMarginMiner takes no 'epsilon'. Allowed: distance, margin",
        ),
        (
            {"loss_arguments": {"alpha": [1, 2]}},
            "loss_arguments: alpha: [1, 2] is not allowed. Allowed: one number or text",
        ),
        (
            {"miner": "BatchHardMiner", "miner_arguments": 3},
            "miner_arguments: 3 is not allowed. Allowed: a group of keys, or {}",
        ),
        (
            {"loss_arguments": {"base": float("nan")}},
            ": MultiSimilarityLoss fails with these arguments: the loss is not finite",
        ),
        (
            {"loss": "RankedListLoss"},
            ": RankedListLoss fails with these arguments: RankedListLoss.__init__",
        ),
        (
            {"loss": "TripletMarginLoss", "loss_arguments": {"margin": "wide"}},
            ": TripletMarginLoss fails with these arguments: ",
        ),
        (
            {"loss": "InstanceLoss", "miner": "PairMarginMiner"},
            ": InstanceLoss with PairMarginMiner fails with these arguments: ",
        ),
    ],
)
def test_bad_settings_are_refused_in_one_sentence(settings: dict[str, Any], sentence: str) -> None:
    assert refusal(**settings).startswith(sentence)


def test_a_config_draws_no_random_numbers() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    Config(loss="ArcFaceLoss")
    assert torch.equal(before, torch.get_rng_state())


def test_a_batch_without_pairs_costs_nothing_and_breaks_nothing() -> None:
    learner, features, _ = toy(miner="MultiSimilarityMiner")
    loss = total(learner, features[:4], torch.arange(4))
    loss.backward()
    assert loss == 0


def test_the_library_is_imported_only_when_a_config_is_made() -> None:
    code = "import sys, dmlray.methods.pml; print('pytorch_metric_learning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_a_batch_that_the_library_refuses_is_a_failed_run_with_its_whole_message() -> None:
    learner, features, _ = toy(loss="SmoothAPLoss")
    with pytest.raises(RunError, match=r"^SmoothAPLoss fails on a batch: All .* batch_size and m"):
        total(learner, features[:3], torch.tensor([0, 0, 1]))


def test_running_out_of_memory_is_not_blamed_on_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    learner, features, labels = toy()
    monkeypatch.setattr(learner.objective, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        total(learner, features, labels)


@pytest.mark.parametrize(
    ("loss", "sizes", "equal", "problem"),
    [
        ("NCALoss", (1, 1, 1), False, "the loss is not finite"),
        ("TupletMarginLoss", (2, 2), True, "is not finite"),
        ("HistogramLoss", (2, 2), True, "out of bounds"),
        ("SmoothAPLoss", (3, 2), False, "[3, 2]. You can achieve this using"),
    ],
)
def test_an_attempt_gives_the_reason_and_draws_no_random_numbers(
    loss: str, sizes: tuple[int, ...], equal: bool, problem: str
) -> None:
    config = Config(loss=loss)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    failure = config.attempt(labels, equal)
    assert failure is not None
    assert problem in failure
    assert "\n" not in failure
    assert config.attempt(torch.tensor([0, 0, 1, 1])) is None
    assert torch.equal(before, torch.get_rng_state())


def test_the_loss_of_a_setting_is_tried_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    failure = Config._failure

    def counted(config: Config, embeddings: Tensor, labels: Tensor) -> str | None:
        tried.append(config.loss)
        return failure(config, embeddings, labels)

    monkeypatch.setattr(Config, "_failure", counted)
    settings = {"loss": "ContrastiveLoss", "loss_arguments": {"neg_margin": 0.123}}
    for dim in (8, 16, 32):
        assert Config.model_validate({**settings, "dim": dim}).dim == dim
    assert tried == ["ContrastiveLoss"]
    Config.model_validate({**settings, "loss_arguments": {"neg_margin": 0.124}})
    assert tried == ["ContrastiveLoss"] * 2
