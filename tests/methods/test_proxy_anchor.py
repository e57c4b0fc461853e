from pathlib import Path

import pytest
import torch
from torch import nn

from dmlray.losses.cosine import pairwise_cosines
from dmlray.methods import Batch
from dmlray.methods.proxy_anchor import Config, Learner
from tests.golden_vectors import assert_close, files, load


@pytest.mark.parametrize("path", files("drml", "pa_baseline_*.npz"))
def test_equals_the_baseline_of_drml(path: Path) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in load(path).items()}
    (classes, dim), width = arrays["param/proxies"].shape, arrays["in/features"].shape[1]
    alpha, margin = arrays["hp"].tolist()
    config = Config(dim=dim, margin=margin, alpha=alpha)
    learner = Learner(config, nn.Identity(), width, classes).to(arrays["param/w"].dtype)
    parameters = {
        "head.weight": arrays["param/w"],
        "head.bias": arrays["param/b"],
        "proxy_anchor.proxies": arrays["param/proxies"],
    }
    learner.load_state_dict(parameters)
    features = arrays["in/features"].requires_grad_()
    outputs = learner(Batch(features, arrays["in/labels"]))
    outputs["embeddings"].retain_grad()
    loss = learner.loss(outputs, arrays["in/labels"])["proxy_anchor"]
    loss.backward()
    found = {
        "out/embedding": outputs["embeddings"].detach(),
        "out/cos": pairwise_cosines(outputs["embeddings"], learner.proxy_anchor.proxies).detach(),
        "out/loss": loss.detach(),
        "grad/features": features.grad,
        "grad/embedding": outputs["embeddings"].grad,
        "grad/w": learner.head.weight.grad,
        "grad/b": learner.head.bias.grad,
        "grad/proxies": learner.proxy_anchor.proxies.grad,
    }
    for key, value in found.items():
        assert_close(value, arrays[key], features.dtype == torch.float32, name=key)


def test_the_head_begins_without_bias_and_with_the_spread_of_its_outputs() -> None:
    torch.manual_seed(0)
    learner = Learner(Config(dim=200), nn.Identity(), 100, 50)
    assert not learner.head.bias.any()
    assert learner.head.weight.std().item() == pytest.approx((2 / 200) ** 0.5, rel=0.03)
    assert learner.proxy_anchor.proxies.std().item() == pytest.approx((2 / 50) ** 0.5, rel=0.03)


def test_groups_carry_the_factors_of_the_config() -> None:
    config = Config(dim=4, head_lr_factor=3, proxy_lr_factor=50)
    factors = {g.name: g.factor for g in Learner(config, nn.Linear(6, 6), 6, 5).groups()}
    assert factors == {"trunk": 1.0, "head": 3.0, "proxies": 50.0}


def test_a_principal_head_keeps_who_is_near_whom() -> None:
    torch.manual_seed(0)
    features = torch.randn(30, 4) @ torch.randn(4, 12) + 5.0
    learner = Learner(Config(dim=8), nn.Identity(), 12, 3)
    learner.initialise_head(features)
    expected = pairwise_cosines(features - features.mean(0), features - features.mean(0))
    units = learner.embed(features)
    torch.testing.assert_close(units @ units.T, expected, atol=1e-3, rtol=0)


def test_the_baseline_of_drml_begins_as_gedml_does() -> None:
    torch.manual_seed(0)
    config = Config(dim=400, recipe="drml2021")
    learner = Learner(config, nn.Identity(), 100, 50)
    assert learner.head.weight.abs().max().item() == pytest.approx(100**-0.5, rel=0.01)
    assert learner.head.bias.abs().max().item() == pytest.approx(100**-0.5, rel=0.05)
    proxies = learner.proxy_anchor.proxies
    assert proxies.abs().max().item() == pytest.approx(400**-0.5, rel=0.01)
    assert proxies.std().item() == pytest.approx((3 * 400) ** -0.5, rel=0.03)  # uniform
