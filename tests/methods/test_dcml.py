from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from dmlray.errors import ConfigError
from dmlray.losses.cosine import unit_rows
from dmlray.methods import Batch
from dmlray.methods._triplets import Triplets
from dmlray.methods.dcml import Config, Learner
from dmlray.plans.resolve import read_experiment
from tests.toy_trunk import ToyTrunk

SIDE, WIDTH, CLASSES = 2, 10, 4


def learner_of(**settings: Any) -> Learner:
    torch.manual_seed(0)
    return Learner(
        Config(**{"dim": 6, "queue_size": 20, **settings}), ToyTrunk(SIDE, WIDTH), WIDTH, CLASSES
    )


def two_views(seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(CLASSES).repeat_interleave(3)
    means = torch.randn(CLASSES, 1, 3, 2, 2, generator=generator)
    noise = torch.randn(len(labels), 2, 3, 2, 2, generator=generator)
    return Batch(means[labels] + 0.5 * noise, labels)


def batch_of(mode: str) -> Batch:
    batch = two_views()
    return batch if mode == "diva" else Batch(batch.images[:, 0], batch.labels)


def terms_of(learner: Learner, batch: Batch) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return learner.loss(learner(batch), batch.labels)


def total(learner: Learner, batch: Batch) -> Tensor:
    return torch.stack(list(terms_of(learner, batch).values())).sum()


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("plain", ["reinf", "discriminative"]),
        ("paper", ["reinf", "discriminative", "subtasks"]),
        ("diva", ["reinf", "discriminative", "ssl", "shared", "intra", "separation"]),
    ],
)
def test_each_mode_has_its_terms_groups_and_unit_embeddings(mode: str, names: list[str]) -> None:
    learner, batch = learner_of(mode=mode), batch_of(mode)
    assert list(terms_of(learner, batch)) == names
    total(learner, batch).backward()
    grouped = [p for group in learner.groups() for p in group.parameters]
    trained = [p for p in learner.parameters() if p.requires_grad]
    assert sorted(map(id, grouped)) == sorted(map(id, trained))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in grouped)
    assert len(learner.boundaries) == {"plain": 1, "paper": 5, "diva": 3}[mode]
    embeddings = learner.embed(two_views().images[:, 0])
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(12))
    assert embeddings.shape[1] == 24


@pytest.mark.parametrize("mode", ["paper", "diva"])
def test_a_few_steps_lower_the_loss_of_the_other_modes(mode: str) -> None:
    learner, batch = learner_of(mode=mode, rho=1.0, temperature=0.1), batch_of(mode)
    settings = [{"params": g.parameters, "lr": 3e-3} for g in learner.groups()]
    optimizer = torch.optim.Adam(settings)
    losses = []
    for _ in range(40):
        loss = total(learner, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("sharing", ["random", "standard", "full"])
@pytest.mark.parametrize("moco_fixed", [False, True])
def test_switches_of_diva_give_finite_gradients(sharing: str, moco_fixed: bool) -> None:
    learner = learner_of(mode="diva", sharing=sharing, moco_fixed=moco_fixed, composites=8)
    for seed in range(3):
        learner.zero_grad()
        total(learner, two_views(seed)).backward()
        assert all(p.grad.isfinite().all() for g in learner.groups() for p in g.parameters)
        learner.after_step()
    assert terms_of(learner, two_views(3))["ssl"] > 0


@pytest.mark.parametrize("mode", ["plain", "paper", "diva"])
@pytest.mark.parametrize("labels", [[0], [2, 2, 2], [0, 1, 2, 3]])
def test_batches_without_a_triplet_stay_finite(mode: str, labels: list[int]) -> None:
    batch = batch_of(mode)
    small = Batch(batch.images[: len(labels)], torch.tensor(labels))
    learner = learner_of(mode=mode)
    loss = total(learner, small)
    loss.backward()
    gradients = [p.grad for p in learner.parameters() if p.grad is not None]
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in gradients)


def test_the_plain_loss_is_one_margin_loss_on_the_joined_composites() -> None:
    learner, batch = learner_of(lambda_reinf=0.0, margin=0.5), batch_of("plain")
    learner.draw_triplets = lambda *_: Triplets(  # type: ignore[assignment]
        torch.tensor([0, 3]), torch.tensor([1, 4]), torch.tensor([6, 7]), torch.ones(2).bool()
    )
    units, beta = learner.embed(batch.images), learner.config.beta
    costs = []
    for a, p, n in ((0, 1, 6), (3, 4, 7)):
        near = ((units[a] - units[p]).square().sum() + 1e-8).sqrt()
        far = ((units[a] - units[n]).square().sum() + 1e-8).sqrt()
        costs.append((near - beta + 0.5).relu() + (beta - far + 0.5).relu())
    expected = torch.stack(costs).sum() / sum(cost > 0 for cost in costs)
    torch.testing.assert_close(total(learner, batch), expected)


def test_paper_compares_sub_embeddings_in_tests_and_plain_composites() -> None:
    images = batch_of("plain").images
    plain, paper = learner_of(), learner_of(mode="paper")
    composition = plain.compositor(plain.trunk(images))
    assert torch.equal(plain.embed(images), unit_rows(composition.composites.flatten(1)))
    assert torch.equal(paper.embed(images), unit_rows(composition.sub_embeddings.flatten(1)))


def test_keys_come_from_the_second_view_and_the_slow_copy() -> None:
    learner, batch = learner_of(mode="diva"), two_views()
    keys = learner(batch)["keys"]
    assert not keys.requires_grad
    swapped = Batch(batch.images.flip(1), batch.labels)
    assert not torch.allclose(learner(swapped)["keys"], keys)
    nn.init.zeros_(learner.get_parameter("trunk.1.weight"))
    torch.testing.assert_close(learner(batch)["keys"], keys)
    learner.after_step()
    assert not torch.allclose(learner(batch)["keys"], keys)


def test_a_step_queues_its_keys_only_after_the_loss() -> None:
    learner, batch = learner_of(mode="diva"), two_views()
    outputs = learner(batch)
    first = terms_of(learner, batch)["ssl"]
    assert first == 0, "nothing to compare with yet"
    assert not learner.queue.filled.any()
    learner.after_step()
    assert torch.equal(learner.queue.keys[:12], outputs["keys"])
    assert learner.queue.filled.sum() == 12
    assert terms_of(learner, batch)["ssl"] > 0


def test_training_begins_with_a_copy_of_the_warmed_up_heads() -> None:
    learner, batch = learner_of(mode="diva"), two_views()
    nn.init.normal_(learner.compositor.sub_embed.weight)
    learner.start_epoch(1)
    slow = learner.get_parameter("slow_compositor.model.sub_embed.weight")
    assert not torch.equal(slow, learner.get_parameter("compositor.sub_embed.weight"))
    learner.start_epoch(0)
    assert torch.equal(slow, learner.get_parameter("compositor.sub_embed.weight"))
    query = learner._heads(learner(batch)["composites"])["selfsimilarity"]
    same = Batch(batch.images[:, [0, 0]], batch.labels)
    torch.testing.assert_close(learner(same)["keys"], query)


def test_heads_of_diva_warm_up_on_features() -> None:
    learner, batch = learner_of(mode="diva"), two_views()
    features = learner.trunk(batch.images[:, 0]).detach()
    learner.trunk = nn.Identity()
    assert total(learner, Batch(features, batch.labels)).isfinite()


def test_diva_saves_and_restores_queue_and_slow_copy() -> None:
    one, other, batch = learner_of(mode="diva"), learner_of(mode="diva"), two_views()
    terms_of(one, batch)
    nn.init.zeros_(one.get_parameter("trunk.1.bias"))
    one.after_step()
    other.load_state_dict(one.state_dict())
    assert torch.equal(total(one, batch), total(other, batch))
    for learner in (one, other):
        learner.after_step()
    assert torch.equal(one.queue.keys, other.queue.keys)


def test_diva_refuses_a_single_view_in_one_sentence() -> None:
    learner = learner_of(mode="diva")
    assert learner.views == 2
    assert learner_of().views == Learner.views == 1
    with pytest.raises(ConfigError, match=r"^method\.mode: diva needs two views of each image"):
        learner(batch_of("plain"))


@pytest.mark.parametrize("composites", [1, 6, 10])
def test_diva_refuses_composites_that_four_heads_cannot_share(composites: int) -> None:
    assert Config(mode="plain", composites=composites)
    with pytest.raises(ValidationError, match=r"not allowed with mode diva\. Allowed: a mult"):
        Config(mode="diva", composites=composites)


def test_groups_carry_the_factors_of_the_config_and_only_the_network_decays() -> None:
    learner = learner_of(mode="diva", head_lr_factor=3, beta_lr_factor=7, regressor_lr_factor=2)
    settings = {g.name: (g.factor, g.weight_decay) for g in learner.groups()}
    assert settings == {
        "trunk": (1.0, None),
        "head": (3.0, None),
        "boundaries": (7.0, 0.0),
        "regressors": (2.0, 0.0),
    }


def test_the_watch_tells_when_all_compositors_choose_alike() -> None:
    learner, batch = learner_of(), batch_of("plain")
    assert learner.metrics() == {}
    terms_of(learner, batch)
    assert 0.25 <= learner.metrics()["largest_choice"] < 1
    nn.init.zeros_(learner.compositor.choose.weight)
    learner.compositor.choose.bias.data = torch.tensor([9.0, 0, 0, 0]).repeat(4)
    terms_of(learner, batch)
    assert learner.metrics() == {"largest_choice": 1.0}


def test_the_readmes_command_is_the_published_recipe() -> None:
    plain = read_experiment(Path("experiments/dcml_cub.yaml")).experiment
    diva = read_experiment(Path("experiments/dcml_diva_cub.yaml")).experiment
    configs: list[Any] = [plain.method.config, diva.method.config]
    assert [config.mode for config in configs] == ["plain", "diva"]
    assert (plain.optimizer.lr, diva.optimizer.lr) == (1e-5, 1.5e-5)
    for experiment, config in zip((plain, diva), configs, strict=True):
        rate = experiment.optimizer.lr * config.beta_lr_factor
        assert rate == pytest.approx(5e-4, rel=1e-6)
        (milestone,) = experiment.optimizer.milestones
        assert int(milestone * experiment.budget.epochs) == 55
