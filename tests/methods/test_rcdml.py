from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dmlray.backbones import Network, Trunk
from dmlray.input_statistics import InputStatistics
from dmlray.losses.cosine import unit_rows
from dmlray.losses.proxy_anchor import ProxyAnchorLoss
from dmlray.losses.rcdml import corrected_proxies, proxy_relationship_loss, sample_relationship_loss
from dmlray.methods import Batch
from dmlray.methods.rcdml import PUBLISHED, SPACE, Config, Learner
from tests.golden_vectors import assert_close, files, load


def read(path: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in load(path).items()}


def toy(**settings: object) -> tuple[Learner, Tensor, Tensor]:
    torch.manual_seed(0)
    learner = Learner(Config(dim=6, **settings), nn.Identity(), 10, 7)
    return learner, torch.randn(8, 10), torch.tensor([0, 0, 0, 2, 2, 3, 3, 5])


@pytest.mark.parametrize("path", files("rcdml_dreml", "rcdml_trajectory*.npz"))
def test_a_training_equals_the_official_loop(path: Path) -> None:
    arrays = read(path)
    (dim, width), classes = arrays["W0"].shape, len(arrays["P0"])
    config = Config(
        dim=dim, prc=arrays["prc"].item(), src=arrays["src"].item(), margin=arrays["mrg"].item(),
        alpha=arrays["alpha"].item(), proxy_lr_factor=arrays["proxy_lr_mult"].item(),
    )  # fmt: skip
    learner = Learner(config, nn.Identity(), width, classes).to(arrays["W0"].dtype)
    start = {"head.weight": "W0", "head.bias": "b0", "proxies": "P0"}
    learner.load_state_dict({name: arrays[key] for name, key in start.items()})
    lr, decay = arrays["lr"].item(), arrays["wd"].item()
    groups = [{"params": g.parameters, "lr": lr * g.factor} for g in learner.groups()[1:]]
    optimizer = torch.optim.AdamW(groups, weight_decay=decay)
    for step, theirs in enumerate(arrays["losses"]):
        labels = arrays[f"T_{step}"]
        terms = learner.loss(learner(Batch(arrays[f"feat_{step}"], labels)), labels)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(learner.parameters(), arrays["clip"].item())
        optimizer.step()
        assert_close(loss, theirs, tolerance=5e-3)
        for name, key in (("head.weight", "W"), ("head.bias", "b"), ("proxies", "P")):
            assert_close(learner.get_parameter(name), arrays[f"{key}_{step + 1}"], tolerance=5e-3)


@pytest.mark.parametrize("path", files("rcdml_dreml", "rcdml_head_resnet*.npz"))
def test_pooling_and_head_equal_the_official_network(path: Path) -> None:
    arrays = read(path)
    (dim, width), maps = arrays["W"].shape, arrays["feature_map"].requires_grad_()
    network = Network(nn.Identity(), width, InputStatistics((0.0,), (1.0,)))
    learner = Learner(Config(dim=dim), Trunk(network, "avg+max"), width, 3).to(maps.dtype)
    learner.head.load_state_dict({"weight": arrays["W"], "bias": arrays["b"]})
    embedding = learner.embed(maps)
    (embedding * arrays["upstream"]).sum().backward()
    found = {
        "embedding": embedding,
        "d_feature_map": maps.grad,
        "dW": learner.head.weight.grad,
        "db": learner.head.bias.grad,
    }
    for key, value in found.items():
        assert_close(value, arrays[key])


def test_only_terms_with_a_weight_are_computed_and_the_weights_count() -> None:
    learner, features, labels = toy(prc=0.5, src=0.25, absent="raw")
    terms = learner.loss(learner(Batch(features, labels)), labels)
    embeddings = learner.embed(features)
    columns = corrected_proxies(embeddings, labels, learner.proxies, 0.3, "raw")
    torch.testing.assert_close(terms["prc"], 0.5 * proxy_relationship_loss(columns))
    torch.testing.assert_close(terms["src"], 0.25 * sample_relationship_loss(embeddings, labels))
    plain, features, labels = toy(prc=0, src=0)
    assert set(plain.loss(plain(Batch(features, labels)), labels)) == {"pull", "push"}


def test_raw_without_relationships_and_correction_is_proxy_anchor() -> None:
    learner, features, labels = toy(prc=0, src=0, pc_mix=0, absent="raw")
    baseline = ProxyAnchorLoss(7, 6, 0.1, 32.0)
    baseline.proxies = learner.proxies
    outputs = learner(Batch(features, labels))
    terms = learner.loss(outputs, labels)
    expected = baseline(outputs["embeddings"], labels)
    torch.testing.assert_close(terms["pull"] + terms["push"], expected)


def test_the_length_of_embeddings_never_matters_and_of_proxies_only_without_normalising() -> None:
    losses = {}
    for normalize in (False, True):
        learner, features, labels = toy(normalize_proxies=normalize)
        outputs = learner(Batch(features, labels))
        long = {"embeddings": 9 * outputs["embeddings"]}
        same, other = learner.loss(outputs, labels), learner.loss(long, labels)
        torch.testing.assert_close(same, other)
        learner.proxies.data *= 20
        losses[normalize] = (same["pull"], learner.loss(outputs, labels)["pull"])
    torch.testing.assert_close(*losses[True])
    assert not torch.isclose(*losses[False], rtol=1e-3)


def test_the_proxies_begin_with_the_official_spread() -> None:
    torch.manual_seed(0)
    learner = Learner(Config(dim=200), nn.Identity(), 100, 50)
    assert learner.proxies.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.03)
    assert not learner.head.bias.any()


def test_groups_carry_the_factors_of_the_config() -> None:
    config = Config(dim=4, head_lr_factor=3, proxy_lr_factor=50)
    factors = {g.name: g.factor for g in Learner(config, nn.Linear(6, 6), 6, 5).groups()}
    assert factors == {"trunk": 1.0, "head": 3.0, "proxies": 50.0}


def test_every_batch_of_the_space_holds_whole_classes() -> None:
    space: dict[str, Any] = dict(SPACE)
    each = [n for n in space["data.images_per_class"].values if n]
    assert all(b % n == 0 for b in space["data.batch_size"].values for n in each)


def test_the_defaults_are_the_published_settings() -> None:
    published = PUBLISHED["cub"].settings
    own = {k.removeprefix("method."): v for k, v in published.items() if k.startswith("method.")}
    assert Config().model_dump() == own


def test_a_principal_head_keeps_who_is_near_whom() -> None:
    torch.manual_seed(0)
    features = torch.randn(30, 4) @ torch.randn(4, 12) + 5.0
    learner = Learner(Config(dim=8), nn.Identity(), 12, 3)
    learner.initialise_head(features)
    units, centred = learner.embed(features), unit_rows(features - features.mean(0))
    torch.testing.assert_close(units @ units.T, centred @ centred.T, atol=1e-3, rtol=0)
