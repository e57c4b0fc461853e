import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from dmlray.losses.idml import (
    IntrospectiveProxyAnchor,
    introspective_distances,
    introspective_similarities,
)
from tests.golden_vectors import assert_close_idml_dcml as assert_close
from tests.golden_vectors import files, load


def similarities_as_released(
    semantic: Tensor, uncertainty: Tensor, proxies: Tensor, tau: float, offset: float
) -> Tensor:
    """losses.py, lines 41-53 of wzzheng/IDML, written out one pair at a time."""
    rows = []
    for m, v in zip(semantic, uncertainty, strict=True):
        row = []
        for p in proxies:
            cosine = m @ p / (m.norm() * p.norm())
            doubt = v @ v + offset
            distance = ((m - p) ** 2).sum()
            row.append(1 - (1 - cosine) * torch.exp(-doubt / (tau * distance)))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def loss_as_released(
    similarities: Tensor, labels: Tensor, margin: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Both halves of Proxy-Anchor, one class at a time."""
    pull, push = [], []
    for c in range(similarities.shape[1]):
        s = similarities[:, c]
        if (labels == c).any():
            pull.append(torch.log(1 + torch.exp(-alpha * (s[labels == c] - margin)).sum()))
        push.append(torch.log(1 + torch.exp(alpha * (s[labels != c] + margin)).sum()))
    return torch.stack(pull).mean(), torch.stack(push).mean()


def criterion_of(
    proxies: Tensor, margin: float, alpha: float, tau: float = 5.0, offset: float = 4.0
) -> IntrospectiveProxyAnchor:
    classes, dim = proxies.shape
    criterion = IntrospectiveProxyAnchor(classes, dim, margin, alpha, tau, offset)
    criterion.proxies = nn.Parameter(proxies.clone())
    return criterion


def loss_and_gradients(
    criterion: IntrospectiveProxyAnchor, semantic: Tensor, uncertainty: Tensor, labels: Tensor
) -> dict[str, Tensor]:
    semantic, uncertainty = (t.clone().requires_grad_() for t in (semantic, uncertainty))
    loss = criterion(semantic, uncertainty, labels)
    loss.backward()
    return {
        "loss": loss.detach(),
        "grad_X": semantic.grad,
        "grad_V": uncertainty.grad,
        "grad_proxies": criterion.proxies.grad,
    }


@pytest.mark.parametrize("path", files("idml_dcml", "idml_proxy_anchor_*.npz"))
def test_equals_the_authors_code(path: Path) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in load(path).items()}
    margin, alpha = arrays["margin"].item(), arrays["alpha"].item()
    semantic, uncertainty, labels = arrays["X"], arrays["V"], arrays["labels"]
    criterion = criterion_of(arrays["proxies"], margin, alpha)
    found = loss_and_gradients(criterion, semantic, uncertainty, labels)
    found["sim_introspective"] = introspective_similarities(
        semantic, uncertainty, arrays["proxies"]
    )
    found["pos_term"], found["neg_term"] = loss_as_released(
        found["sim_introspective"].double(), labels, margin, alpha
    )
    single = semantic.dtype == torch.float32
    for key, value in found.items():
        assert_close(value, arrays[key], single, name=key)


SHAPES = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 10),
        "classes": st.integers(1, 8),
        "present": st.integers(1, 8),
        "dim": st.integers(1, 6),
        "seed": st.integers(0, 10_000),
    }
)


@settings(max_examples=60, deadline=None)
@given(
    shape=SHAPES,
    margin=st.sampled_from([0.0, 0.1, 0.4]),
    alpha=st.sampled_from([0.5, 32.0, 64.0]),
    tau=st.sampled_from([0.5, 5.0, 20.0]),
    offset=st.sampled_from([0.0, 4.0]),
)
def test_equals_the_equation_on_any_shape(
    shape: dict[str, int], margin: float, alpha: float, tau: float, offset: float
) -> None:
    generator = torch.Generator().manual_seed(shape["seed"])
    batch, classes, dim = shape["batch"], shape["classes"], shape["dim"]
    semantic, uncertainty, proxies = (
        torch.randn(rows, dim, generator=generator, dtype=torch.float64)
        for rows in (batch, batch, classes)
    )
    labels = torch.randint(min(shape["present"], classes), (batch,), generator=generator)
    inputs = [t.clone().requires_grad_() for t in (semantic, uncertainty, proxies)]
    similarities = similarities_as_released(inputs[0], inputs[1], inputs[2], tau, offset)
    pull, push = loss_as_released(similarities, labels, margin, alpha)
    expected = pull + push
    expected.backward()
    criterion = criterion_of(proxies, margin, alpha, tau, offset)
    found = loss_and_gradients(criterion, semantic, uncertainty, labels)
    wanted = [expected.detach(), *(tensor.grad for tensor in inputs)]
    for ours, theirs in zip(found.values(), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 4, 4]],
    ids=["one class only", "one image per class", "classes absent"],
)
@pytest.mark.parametrize("unit", [True, False])
def test_proxies_upon_images_and_an_extreme_scale_stay_finite(
    labels: list[int], unit: bool
) -> None:
    proxies = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    proxies = F.normalize(proxies) if unit else 1e3 * proxies
    semantic = torch.stack([proxies[0], proxies[0], -proxies[1], proxies[2]])
    uncertainty = torch.tensor([[0.0, 0, 0], [1, 0, 0], [100, 0, 0], [0, 0, 0]])
    criterion = criterion_of(proxies, 0.4, 64.0, tau=1.0, offset=0.0)
    found = loss_and_gradients(criterion, semantic, uncertainty, torch.tensor(labels))
    assert all(tensor.isfinite().all() for tensor in found.values())


def test_an_image_upon_its_proxy_is_wholly_like_it() -> None:
    vectors = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)))
    similarities = introspective_similarities(vectors, vectors, vectors)
    torch.testing.assert_close(similarities.diag(), torch.ones(4))


def test_uncertainty_brings_unlike_images_closer() -> None:
    semantic, proxies = torch.eye(2), torch.eye(2).flip(0)
    sure, unsure = (
        introspective_similarities(semantic, length * torch.ones(2, 2), proxies).diag()
        for length in (0.0, 2.0)
    )
    assert (unsure > sure).all()
    assert (sure > 0).all()


def test_unit_uncertainty_is_inert_in_the_released_form() -> None:
    torch.manual_seed(0)
    criterion = IntrospectiveProxyAnchor(5, 4, 0.1, 32.0).double()
    raw = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    semantic = F.normalize(torch.randn(6, 4, dtype=torch.float64))
    criterion(semantic, F.normalize(raw), torch.arange(6) % 5).backward()
    assert raw.grad.abs().max() < 1e-12


def test_the_spread_scales_the_first_proxies() -> None:
    torch.manual_seed(0)
    proxies = IntrospectiveProxyAnchor(50, 400, 0.1, 32.0, spread=0.3).proxies
    assert proxies.std().item() == pytest.approx(0.3 * math.sqrt(2 / 50), rel=0.03)


def test_autocast_does_not_coarsen_the_loss() -> None:
    torch.manual_seed(0)
    criterion = IntrospectiveProxyAnchor(5, 16, 0.1, 32.0)
    semantic, uncertainty, labels = torch.randn(8, 16), torch.randn(8, 16), torch.arange(8) % 5
    with torch.autocast("cpu", torch.bfloat16):
        under = criterion(semantic, uncertainty, labels)
        rounded = criterion(semantic.bfloat16(), uncertainty.bfloat16(), labels)
    assert under.dtype == rounded.dtype == torch.float32
    assert torch.equal(under, criterion(semantic, uncertainty, labels))


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 8), dim=st.integers(1, 5), seed=st.integers(0, 10_000))
def test_distances_of_pairs_equal_the_figure(batch: int, dim: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    m, v = torch.randn(2, batch, dim, generator=generator, dtype=torch.float64)
    found = introspective_distances(m, v, tau=3.0)
    for i in range(batch):
        for j in range(batch):
            a, b = (m[i] - m[j]).norm().item(), (v[i] + v[j]).norm().item()
            expected = a * math.exp(-b / (3.0 * a)) if i != j else 0.0
            assert found[i, j].item() == pytest.approx(expected, rel=1e-6, abs=2e-6)


def test_duplicates_are_at_distance_zero_without_a_gradient() -> None:
    m, v = torch.ones(3, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    distances = introspective_distances(m, v)
    distances.sum().backward()
    assert distances.max() < 2e-6
    assert torch.equal(m.grad, torch.zeros(3, 4))
    assert v.grad.isfinite().all()


def test_opposite_uncertainties_leave_the_plain_distance() -> None:
    m, v = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([[0.6, -0.8], [-0.6, 0.8]])
    assert introspective_distances(m, v)[0, 1].item() == pytest.approx(math.sqrt(2), rel=1e-5)
