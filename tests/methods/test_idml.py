from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmlray.backbones import Network, Trunk
from dmlray.input_statistics import InputStatistics
from dmlray.methods import Batch, idml
from dmlray.methods.idml import Config, Learner
from dmlray.plans.config_sources import flatten
from dmlray.plans.experiment import Experiment
from tests.golden_vectors import assert_close_idml_dcml as assert_close
from tests.golden_vectors import files, load

NAMES = {
    "W_semantic": "head.weight",
    "b_semantic": "head.bias",
    "W_uncertainty": "uncertainty_head.weight",
    "b_uncertainty": "uncertainty_head.bias",
    "proxies": "criterion.proxies",
}


def read(path: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in load(path).items()}


def golden_learner(arrays: dict[str, Tensor], weights: dict[str, Tensor]) -> Learner:
    """A learner with the authors' heads on a trunk that only pools."""
    normalised = bool(arrays["is_norm"])
    dim, width = weights["W_semantic"].shape
    config = Config(
        dim=dim,
        metric="released" if normalised else "live",
        unit_semantics=normalised,
        alpha=float(arrays.get("alpha", 32)),
        margin=float(arrays.get("margin", 0.1)),
        proxy_lr_factor=float(arrays.get("proxy_lr_mult", 100)),
    )
    network = Network(nn.Identity(), width, InputStatistics((0.0,), (1.0,)))
    classes = len(weights.get("proxies", weights["W_semantic"]))
    learner = Learner(config, Trunk(network, "avg+max"), width, classes)
    named = {NAMES[name]: weight for name, weight in weights.items()}
    learner.to(weights["W_semantic"].dtype).load_state_dict(named, strict="proxies" in weights)
    return learner


@pytest.mark.parametrize("path", files("idml_dcml", "idml_heads_*.npz"))
def test_heads_equal_the_authors_code(path: Path) -> None:
    arrays = read(path)
    weights = {name: arrays[name] for name in NAMES if name in arrays}
    learner = golden_learner(arrays, weights).eval()
    images = arrays["feature_map"].requires_grad_()
    outputs = learner(Batch(images, torch.arange(len(images))))
    products = [outputs[name] * arrays[f"coef_{name}"] for name in ("semantic", "uncertainty")]
    objective = torch.stack(products).sum()
    objective.backward()
    found = {**outputs, "objective": objective, "grad_feature_map": images.grad}
    found |= {f"grad_{n}": learner.get_parameter(NAMES[n]).grad for n in weights}
    for key, value in found.items():
        assert_close(value, arrays[key], name=key)


@pytest.mark.parametrize("path", files("idml_dcml", "idml_train_step*.npz"))
def test_training_steps_equal_the_authors_loop(path: Path, monkeypatch: Any) -> None:
    arrays = read(path)
    learner = golden_learner(arrays, {name: arrays[f"init_{name}"] for name in NAMES})
    lr = float(arrays["lr"])
    optimizer = torch.optim.AdamW(
        [{"params": g.parameters, "lr": lr * g.factor} for g in learner.groups()],
        weight_decay=float(arrays["weight_decay"]),
    )
    for step in range(len(arrays["lam"])):
        mixing = float(arrays["lam"][step]), arrays["perm"][step]
        monkeypatch.setattr(idml, "draw_mixing", lambda *_, mixing=mixing: mixing)
        labels = arrays["labels"][step]
        terms = learner.loss(learner(Batch(arrays["feature_maps"][step], labels)), labels)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(learner.parameters(), float(arrays["clip_value"]))
        optimizer.step()
        share = mixing[0]
        parts = [terms["clean"], terms["mixed"] / share, terms["mixed_partner"] / (1 - share)]
        assert_close(torch.stack(parts), arrays["loss_parts"][step], name=f"parts of step {step}")
        assert_close(loss, arrays["loss"][step], name=f"loss of step {step}")
        _compare_weights(learner, arrays, step)


def _compare_weights(learner: Learner, arrays: dict[str, Tensor], step: int) -> None:
    """Unit uncertainties have no gradient but rounding, which AdamW amplifies to steps of up to lr.

    So the golden README does not compare these weights in float32; two runs that walk apart are
    2 lr farther from each other after each step.
    """
    noise = 2 * float(arrays["lr"]) * (step + 1)
    for name, own in NAMES.items():
        parameter = learner.get_parameter(own)
        inert = bool(arrays["is_norm"]) and name.endswith("_uncertainty")
        assert parameter.grad is not None
        place, after = f"step {step} {name}", arrays[f"step{step}_after_{name}"]
        assert_close(parameter.grad, arrays[f"step{step}_grad_{name}"], name=place)
        allowed: Any = {"tolerance": noise, "double": 1e-6} if inert else {}
        assert_close(parameter, after, name=place, **allowed)


def small(**settings: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(Config(**{"dim": 4, **settings}), nn.Linear(6, 6), 6, 5)


def toy_batch() -> Batch:
    images = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    return Batch(images, torch.arange(8) % 4)


def total(learner: Learner, batch: Batch) -> Tensor:
    torch.manual_seed(2)
    return torch.stack(list(learner.loss(learner(batch), batch.labels).values())).sum()


@pytest.mark.parametrize("shape", [(6,), (3, 4, 5)])
def test_images_of_any_shape_are_mixed_with_their_partners(shape: tuple[int, ...]) -> None:
    learner, seen = small(), []
    learner.trunk = nn.Flatten()
    learner.trunk.register_forward_hook(lambda *call: seen.append(call[1][0]))
    learner.head, learner.uncertainty_head = nn.LazyLinear(4), nn.LazyLinear(4)
    images, labels = torch.randn(7, *shape), torch.arange(7)
    outputs = learner(Batch(images, labels))
    share, partners = outputs["share"][0], outputs["partner_labels"]
    assert 0 < share < 1
    assert (outputs["share"] == share).all()
    assert sorted(partners.tolist()) == list(range(7))
    assert torch.equal(seen[0], images)
    torch.testing.assert_close(seen[1], share * images + (1 - share) * images[partners])


def test_each_batch_is_mixed_anew_and_a_seed_repeats_it() -> None:
    learner, draws = small(), []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append([learner(toy_batch()) for _ in range(2)])
    (first, second), again = draws
    assert first["share"][0] != second["share"][0]
    assert not torch.equal(first["partner_labels"], second["partner_labels"])
    for name in first:
        assert torch.equal(first[name], again[0][name])


def test_shares_follow_the_beta_distribution() -> None:
    torch.manual_seed(0)
    cpu = torch.device("cpu")
    extreme, even = (
        torch.tensor([idml.draw_mixing(2, beta, cpu)[0] for _ in range(2000)]) for beta in (0.2, 1)
    )
    assert even.mean().item() == pytest.approx(0.5, abs=0.03)
    assert even.var().item() == pytest.approx(1 / 12, abs=0.01)
    assert extreme.var().item() == pytest.approx(0.25 / 1.4, abs=0.02)


def test_nothing_is_mixed_without_a_weight_or_in_evaluation() -> None:
    for learner in (small(mixup_weight=0), small().eval()):
        outputs = learner(toy_batch())
        assert set(outputs) == {"semantic", "uncertainty"}
        assert set(learner.loss(outputs, toy_batch().labels)) == {"clean"}


def test_the_weight_scales_the_mixed_terms_only() -> None:
    learner, heavy, batch = small(), small(mixup_weight=3), toy_batch()
    torch.manual_seed(2)
    outputs = learner(batch)
    one, three = (each.loss(outputs, batch.labels) for each in (learner, heavy))
    torch.testing.assert_close(three["clean"], one["clean"])
    for name in ("mixed", "mixed_partner"):
        torch.testing.assert_close(three[name], 3 * one[name])


def test_outputs_of_two_workers_make_the_same_loss_in_either_order() -> None:
    learner, batch = small(), toy_batch()
    outputs = learner(batch)
    order = torch.randperm(8)
    there = learner.loss({k: v[order] for k, v in outputs.items()}, batch.labels[order])
    for name, term in learner.loss(outputs, batch.labels).items():
        torch.testing.assert_close(there[name], term)


def test_cached_features_in_place_of_images_give_the_same_loss() -> None:
    learner, batch = small(), toy_batch()
    loss, features = total(learner, batch), learner.trunk(batch.images)
    learner.trunk = nn.Identity()
    torch.testing.assert_close(total(learner, Batch(features, batch.labels)), loss)


def groups_of(learner: Learner) -> dict[str, tuple[int, float]]:
    return {g.name: (len(g.parameters), g.factor) for g in learner.groups()}


def test_the_released_uncertainty_head_rests_with_the_trunk() -> None:
    learner = small(head_lr_factor=3, proxy_lr_factor=50)
    assert groups_of(learner) == {"trunk": (4, 1.0), "head": (2, 3.0), "proxies": (1, 50.0)}
    learner.trunk = nn.Identity()  # as in the warm-up of the heads
    assert groups_of(learner)["trunk"][0] == 0
    assert groups_of(learner)["uncertainty"] == (2, 1.0)


def test_the_live_uncertainty_head_learns_from_the_first_step() -> None:
    learner = small(metric="live")
    assert groups_of(learner)["uncertainty"] == (2, 1.0)
    total(learner, toy_batch()).backward()
    assert learner.uncertainty_head.weight.grad.abs().max() > 1e-4


@pytest.mark.parametrize("metric", ["released", "live"])
@pytest.mark.parametrize("loss", ["contrastive", "triplet", "margin", "multi_similarity"])
def test_pair_losses_teach_all_that_is_in_a_group(loss: str, metric: str) -> None:
    learner = small(loss=loss, metric=metric)
    total(learner, toy_batch()).backward()
    assert ("proxies" in groups_of(learner)) == (loss == "margin")
    for group in learner.groups():
        for parameter in group.parameters:
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.any()


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_activated_uncertainties_are_not_negative(activation: str) -> None:
    outputs = small(uncertainty_activation=activation, metric="live")(toy_batch())
    assert (outputs["uncertainty"] >= 0).all()
    assert (small(metric="live")(toy_batch())["uncertainty"] < 0).any()


def test_the_heads_begin_as_in_the_authors_code() -> None:
    torch.manual_seed(0)
    learner = Learner(Config(dim=200), nn.Identity(), 100, 50)
    assert not learner.head.bias.any()
    assert learner.uncertainty_head.bias.any()
    assert learner.head.weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.03)
    assert learner.uncertainty_head.weight.abs().max() <= 0.1


def test_published_recipes_are_settings_that_exist() -> None:
    existing = set(flatten(Experiment(method={"name": "idml", "config": Config()}).document()))
    for published in idml.PUBLISHED.values():
        assert set(published.settings) <= existing
    assert {"cub", "cars", "sop"} <= set(idml.PUBLISHED)
