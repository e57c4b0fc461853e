import logging
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dmlray.backbones import Network, Trunk
from dmlray.data.meta_classes import assign_meta_classes
from dmlray.input_statistics import InputStatistics
from dmlray.learn.optimizer import lr_factor
from dmlray.methods import Batch
from dmlray.methods.dreml import Config, Learner, Recipe
from dmlray.plans.experiment import OptimizerConfig
from tests.golden_vectors import assert_close, files, load

LEFTTHOMAS = OptimizerConfig(schedule="multistep", milestones=(0.5, 0.7), gamma=0.1, early_epochs=1)


def read(path: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in load(path).items()}


def learner_of_classes(
    weight: Tensor, bias: Tensor, trunk: nn.Module | None = None, recipe: Recipe = "leftthomas"
) -> Learner:
    """A learner whose meta classes equal the classes."""
    meta_classes, width = weight.shape
    config = Config(meta_classes=meta_classes, recipe=recipe)
    learner = Learner(config, trunk or nn.Identity(), width, meta_classes).to(weight.dtype)
    learner.meta_class_of.copy_(torch.arange(meta_classes))
    learner.head.load_state_dict({"weight": weight, "bias": bias})
    return learner


@pytest.mark.parametrize(
    ("recipe", "key"),
    [
        ("leftthomas", "ce_{}_leftthomas"),
        ("authors2020", "static_{}_littleredxh"),
        ("authors2018", "normed_{}_2018"),
    ],
)
@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_loss*.npz"))
def test_loss_equals_each_authors_code(path: Path, recipe: Recipe, key: str) -> None:
    arrays = read(path)
    logits = arrays["logits"].requires_grad_()
    size = logits.shape[1]
    identity = torch.eye(size, dtype=logits.dtype)
    learner = learner_of_classes(identity, logits.new_zeros(size), recipe=recipe)
    outputs = learner(Batch(logits, arrays["labels"]))
    loss = learner.loss(outputs, arrays["labels"])["cross_entropy"]
    loss.backward()
    assert_close(loss, arrays[key.format("loss")])
    assert_close(logits.grad, arrays[key.format("dlogits")])
    assert torch.equal(outputs["logits"].argmax(1), arrays["pred"])


@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_head*.npz"))
def test_head_equals_leftthomas(path: Path) -> None:
    arrays = read(path)
    statistics = InputStatistics((0.0,), (1.0,))
    width = arrays["feature_map"].shape[1]
    learner = learner_of_classes(
        arrays["W"], arrays["b"], Trunk(Network(nn.Identity(), width, statistics))
    )
    images = arrays["feature_map"].requires_grad_()
    outputs = learner(Batch(images, arrays["labels"]))
    loss = learner.loss(outputs, arrays["labels"])["cross_entropy"]
    loss.backward()
    found = {
        "logits": outputs["logits"],
        "embedding": learner.embed(images),
        "loss": loss,
        "d_feature_map": images.grad,
        "dW": learner.head.weight.grad,
        "db": learner.head.bias.grad,
    }
    for key, value in found.items():
        assert_close(value, arrays[key])


@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_fc_trajectory*.npz"))
def test_a_whole_training_equals_leftthomas(path: Path) -> None:
    arrays = read(path)
    features, labels, epochs = arrays["feat"], arrays["labels"], int(arrays["epochs"])
    learner = learner_of_classes(arrays["W0"], arrays["b0"])
    optimizer = torch.optim.Adam(learner.head.parameters())
    logged = []
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = float(arrays["lr"]) * lr_factor(LEFTTHOMAS, epoch, 1, epochs)
        loss_sum, right = 0.0, 0
        batches = zip(
            features.split(int(arrays["batch_size"])),
            labels.split(int(arrays["batch_size"])),
            strict=True,
        )
        for images, targets in batches:
            outputs = learner(Batch(images, targets))
            loss = learner.loss(outputs, targets)["cross_entropy"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            right += int((outputs["logits"].argmax(1) == targets).sum())
        logged.append((loss_sum / len(labels), right / len(labels)))
        for key, value in (("W", learner.head.weight), ("b", learner.head.bias)):
            assert_close(value, arrays[f"{key}_{epoch + 1}"], tolerance=5e-3)
    losses, accuracies = zip(*logged, strict=True)
    np.testing.assert_allclose(losses, arrays["epoch_loss_as_logged"], rtol=1e-5)
    np.testing.assert_allclose(accuracies, arrays["epoch_acc_as_logged"], rtol=1e-6)


def test_each_seed_draws_its_own_balanced_meta_classes() -> None:
    draws = [
        Learner(Config(meta_classes=6, draw_seed=seed), nn.Identity(), 4, 20).meta_class_of
        for seed in (3, 3, 4)
    ]
    assert draws[0].tolist() == assign_meta_classes(20, 6, random.Random(3)) == draws[1].tolist()
    assert draws[2].tolist() != draws[0].tolist()
    assert set(Counter(draws[0].tolist()).values()) == {3, 4}


def test_labels_are_judged_by_their_meta_class() -> None:
    learner = Learner(Config(meta_classes=2), nn.Identity(), 3, 6)
    logits = torch.randn(6, 2, dtype=torch.float64)
    loss = learner.loss({"logits": logits}, torch.arange(6))["cross_entropy"]
    chances = logits.exp() / logits.exp().sum(1, keepdim=True)
    picked = [chances[row, learner.meta_class_of[row]].log() for row in range(6)]
    torch.testing.assert_close(loss, -torch.stack(picked).mean())


def test_more_meta_classes_than_classes_are_clipped_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        learner = Learner(Config(meta_classes=12), nn.Identity(), 4, 5)
    assert learner.head.out_features == 5
    assert sorted(learner.meta_class_of.tolist()) == [0, 1, 2, 3, 4]
    assert "method.meta_classes: 12 is more than the 5 classes" in caplog.text


def test_pooled_embeddings_are_the_features_and_not_the_logits() -> None:
    learner = Learner(Config(meta_classes=3, embedding="pooled"), nn.Identity(), 4, 5)
    features = torch.randn(2, 4)
    expected = features / features.norm(dim=1, keepdim=True)
    torch.testing.assert_close(learner.embed(features), expected)


def test_normalised_logits_lose_their_length_and_gain_the_scale() -> None:
    config = Config(meta_classes=3, normalise_logits=True, logit_scale=5.0)
    learner, labels = Learner(config, nn.Identity(), 4, 3), torch.arange(3)
    logits = torch.randn(3, 3)
    losses = [learner.loss({"logits": s * logits}, labels)["cross_entropy"] for s in (1, 9)]
    torch.testing.assert_close(losses[0], losses[1])
    units = 5 * logits / logits.norm(dim=1, keepdim=True)
    expected = -units.log_softmax(1)[labels, learner.meta_class_of].mean()
    torch.testing.assert_close(losses[0], expected)
