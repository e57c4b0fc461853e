from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from dmlray.errors import ConfigError
from dmlray.losses.proxy_anchor import proxy_anchor
from dmlray.methods import Batch
from dmlray.methods.drml import Config, Learner
from tests import golden_vectors
from tests.golden_vectors import files, load

OFFICIAL = {
    "node": "head.node",
    "aedge": "head.source",
    "bedge": "head.target",
    "dec": "head.decoder",
    "score": "head.score",
    "integ": "head.updater",
    "trunk": "trunk",
}
PROXIES = {"proxies_ens": "branch_proxies", "proxies_repre": "final_proxies"}


def read(path: Path) -> dict[str, Tensor]:
    return {key: torch.from_numpy(value) for key, value in load(path).items()}


assert_close = partial(golden_vectors.assert_close, tolerance=3e-4)


def below(arrays: dict[str, Tensor], folder: str) -> dict[str, Tensor]:
    return {k.removeprefix(folder): v for k, v in arrays.items() if k.startswith(folder)}


def ours_of(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """Official parameter names -> our names."""
    found = {}
    for name, value in official.items():
        if name in PROXIES:
            found[PROXIES[name]] = value
        else:
            layer, _, kind = name.rpartition("_")
            found[f"{OFFICIAL[layer]}.{'weight' if kind == 'w' else 'bias'}"] = value
    return found


def learner_of(
    official: dict[str, Tensor], hyper: Tensor, trunk: nn.Module | None = None
) -> Learner:
    alpha, margin, final_weight, recon_weight = hyper.tolist()
    branches, part, width = official["node_w"].shape
    config = Config(
        dim=branches * part,
        branches=branches,
        alpha=alpha,
        margin=margin,
        final_weight=final_weight,
        recon_weight=recon_weight,
    )
    classes = len(official["proxies_repre"])
    learner = Learner(config, trunk or nn.Identity(), branches * width, classes)
    learner.to(official["node_w"].dtype).load_state_dict(ours_of(official))
    return learner


def unweighted(terms: dict[str, Tensor], config: Config) -> list[Tensor]:
    """Loss of each branch, of the final embedding and of the reconstruction."""
    branches = [terms[f"branch_{k}"] for k in range(config.branches)]
    return [*branches, terms["final"] / config.final_weight, terms["recon"] / config.recon_weight]


@pytest.mark.parametrize("path", files("drml", "head_*.npz"))
def test_everything_that_the_head_gives_equals_the_official_code(path: Path) -> None:
    arrays = read(path)
    features, labels = arrays["in/features"], arrays["in/labels"]
    learner = learner_of(below(arrays, "param/"), arrays["hp"])
    head, single = learner.head, features.dtype == torch.float32
    outputs = learner(Batch(features, labels))
    inputs = head.inputs(features)
    scores = head.scores(inputs)
    *branch_losses, final, recon = unweighted(learner.loss(outputs, labels), learner.config)
    found = {
        "nodes": outputs["nodes"],
        "aedges": head.source(inputs),
        "bedges": head.target(inputs),
        "score_raw": scores,
        "nodes_updated": head.messages(outputs["nodes"], scores),
        "embedding": outputs["embeddings"],
        "embedding_test": learner.embed(features),
        "recon": head.decoder(outputs["nodes"]),
        "recon_err": outputs["errors"],
        "loss_ens": torch.stack(branch_losses),
        "loss_repre": final,
        "loss_recon": recon,
        "loss_total": torch.stack(list(learner.loss(outputs, labels).values())).sum(),
    }
    for name, value in found.items():
        assert_close(value, arrays[f"out/{name}"], single, name=name)
    assert torch.equal(outputs["errors"].argmin(1), arrays["out/assign"])
    assert set(below(arrays, "out/")) == {*found, "assign", "weights"}


@pytest.mark.parametrize("path", files("drml", "head_*.npz"))
@pytest.mark.parametrize("which", ["total", "ens", "repre", "recon"])
def test_every_gradient_equals_the_official_one_zeros_included(path: Path, which: str) -> None:
    arrays = read(path)
    features, labels = arrays["in/features"].requires_grad_(), arrays["in/labels"]
    learner = learner_of(below(arrays, "param/"), arrays["hp"])
    terms = learner.loss(learner(Batch(features, labels)), labels)
    *branches, final, recon = unweighted(terms, learner.config)
    sums = {
        "total": torch.stack(list(terms.values())).sum(),
        "ens": torch.stack(branches).sum(),
        "repre": final,
        "recon": recon,
    }
    sums[which].backward()
    official = below(arrays, f"grad_{which}/")
    ours = {"features": features, **dict(learner.named_parameters())}
    expected = {"features": official.pop("features"), **ours_of(official)}
    assert ours.keys() == expected.keys()
    for name, value in ours.items():
        gradient = torch.zeros_like(value) if value.grad is None else value.grad
        assert_close(gradient, expected[name], features.dtype == torch.float32, name=name)
        if not expected[name].any():
            assert not gradient.any(), f"{name} is to be left alone"


@pytest.mark.parametrize("path", files("drml", "trainer*.npz"))
def test_a_training_equals_the_official_trainer(path: Path) -> None:
    """Four optimizers; the trunk and its schedule start later; clipping only at step 0."""
    arrays = read(path)
    *rates, decay, step_size, gamma, warmup, max_norm = arrays["opt"].tolist()
    start, labels = below(arrays, "param0/"), arrays["in/labels"]
    trunk = nn.Linear(start["trunk_w"].shape[1], start["trunk_w"].shape[0])
    learner = learner_of(start, arrays["hp"], trunk)
    groups = [group.parameters for group in learner.groups()]
    optimizers = [
        torch.optim.AdamW(group, lr=lr, weight_decay=decay)
        for group, lr in zip(groups, rates, strict=True)
    ]
    schedules = [torch.optim.lr_scheduler.StepLR(o, int(step_size), gamma) for o in optimizers]
    for epoch in range(len(arrays["out/total"])):
        rates_now = torch.tensor([o.param_groups[0]["lr"] for o in optimizers])
        assert_close(rates_now.double(), arrays["out/lr"][epoch], single=False, name="lr")
        terms = learner.loss(learner(Batch(arrays["in/x"], labels)), labels)
        components = torch.stack(unweighted(terms, learner.config))
        assert_close(components, arrays["out/components"][epoch], single=False)
        total = torch.stack(list(terms.values())).sum()
        assert_close(total, arrays["out/total"][epoch], single=False, name="total")
        learner.zero_grad()
        total.backward()
        norms = torch.stack(
            [
                nn.utils.clip_grad_norm_(group, max_norm if epoch == 0 else torch.inf)
                for group in groups
            ]
        )
        assert_close(norms, arrays["out/gradnorm_before_clip"][epoch], single=False, name="norms")
        resting = 1 if epoch < warmup else 0
        for optimizer, schedule in list(zip(optimizers, schedules, strict=True))[resting:]:
            optimizer.step()
            schedule.step()
        after = ours_of(below(arrays, f"param{epoch + 1}/"))
        for name, value in learner.named_parameters():
            torch.testing.assert_close(value.detach(), after[name], rtol=1e-8, atol=1e-8)


@settings(max_examples=50, deadline=None)
@given(
    batch=st.integers(1, 10),
    classes=st.integers(1, 6),
    present=st.integers(1, 6),
    branches=st.integers(1, 4),
    extreme=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_each_branch_judges_its_own_images_only(
    batch: int, classes: int, present: int, branches: int, extreme: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    config = Config(dim=2 * branches, branches=branches, margin=0.4 if extreme else 0.1)
    learner = Learner(config, nn.Identity(), 3 * branches, classes).double()
    labels = torch.randint(min(present, classes), (batch,))
    features = torch.randn(batch, 3 * branches, dtype=torch.float64)
    outputs = learner(Batch(features, labels))
    terms = learner.loss(outputs, labels)
    assert list(terms) == [*(f"branch_{k}" for k in range(branches)), "final", "recon"]
    for k in range(branches):
        mine = [b for b in range(batch) if outputs["errors"][b].argmin() == k]
        proxies = learner.branch_proxies[k]
        cosines = torch.stack(
            [outputs["nodes"][b, k] @ proxies.T / proxies.norm(dim=1) for b in mine]
            or [torch.zeros(0, dtype=torch.float64)]
        ).reshape(len(mine), classes)
        expected = proxy_anchor(cosines, labels[mine], config.margin, config.alpha)
        torch.testing.assert_close(terms[f"branch_{k}"], expected)
        if not mine:
            assert terms[f"branch_{k}"] == 0
    torch.testing.assert_close(terms["recon"], outputs["errors"].mean())


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 4, 4], [3]],
    ids=["one class only", "one image per class", "duplicates", "batch of one"],
)
def test_extreme_scale_stays_finite_in_float32(labels: list[int]) -> None:
    torch.manual_seed(0)
    learner = Learner(Config(dim=8, branches=4, margin=0.4, alpha=64.0), nn.Identity(), 12, 5)
    features = torch.randn(1, 12).repeat(len(labels), 1).requires_grad_()  # all to one branch
    with torch.no_grad():
        learner.final_proxies[0] = -learner.head(features).embeddings[0]
        learner.final_proxies[1] = -learner.final_proxies[0]
    terms = learner.loss(learner(Batch(features, torch.tensor(labels))), torch.tensor(labels))
    torch.stack(list(terms.values())).sum().backward()
    assert sum(terms[f"branch_{k}"] == 0 for k in range(4)) == 3
    gradients = [features.grad, *(p.grad for p in learner.parameters())]
    assert all(term.isfinite() for term in terms.values())
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_the_share_of_each_branch_is_counted_anew_each_epoch() -> None:
    learner = Learner(Config(dim=4, branches=2), nn.Identity(), 6, 3)
    outputs = {
        "nodes": torch.randn(4, 2, 2),
        "embeddings": torch.randn(4, 4),
        "errors": torch.tensor([[1.0, 2.0], [1.0, 1.0], [2.0, 1.0], [0.0, 3.0]]),
    }
    labels = torch.tensor([0, 1, 2, 2])
    assert learner.metrics() == {"branch_0_share": 0.0, "branch_1_share": 0.0}
    for epoch in range(2):
        learner.start_epoch(epoch)
        learner.loss(outputs, labels)
        learner.loss(outputs, labels)
        assert learner.metrics() == {"branch_0_share": 0.75, "branch_1_share": 0.25}


def test_proxies_begin_with_the_official_spread() -> None:
    torch.manual_seed(0)
    learner = Learner(Config(), nn.Identity(), 1024, 100)
    assert learner.branch_proxies.shape == (4, 100, 128)
    assert learner.branch_proxies.std().item() == pytest.approx(0.051, rel=0.02)
    assert learner.final_proxies.std().item() == pytest.approx(0.0255, rel=0.02)
    assert learner.final_proxies.abs().max().item() <= 512**-0.5


def test_groups_carry_the_factors_of_the_config() -> None:
    config = Config(dim=4, head_lr_factor=3, proxy_lr_factor=50)
    factors = {g.name: g.factor for g in Learner(config, nn.Linear(8, 8), 8, 5).groups()}
    assert factors == {"trunk": 1.0, "head": 3.0, "branch_proxies": 50.0, "final_proxies": 50.0}


def test_branches_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError) as refusal:
        Learner(Config(dim=12, branches=3), nn.Identity(), 32, 5)
    assert str(refusal.value) == (
        "method.branches: 3 does not divide the backbone's width 32. Allowed with dim 12: 1, 2, 4"
    )
    Learner(Config(dim=12, branches=3, branch_input="full"), nn.Identity(), 32, 5)


def test_branches_that_do_not_divide_the_embedding_are_refused() -> None:
    with pytest.raises(ValidationError, match="dim 10 is not divisible by branches 4"):
        Config(dim=10)
