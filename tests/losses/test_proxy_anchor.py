from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from dmlray.losses.cosine import pairwise_cosines
from dmlray.losses.proxy_anchor import ProxyAnchorLoss, proxy_anchor
from tests.golden_vectors import assert_close, files, load


def as_in_the_paper(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, margin: float, alpha: float
) -> Tensor:
    """Equation 4 of arXiv 2003.13911, written out one proxy at a time."""
    pull, push = [], []
    for c, proxy in enumerate(proxies):
        s = torch.stack([x @ proxy / (x.norm() * proxy.norm()) for x in embeddings])
        if (labels == c).any():
            pull.append(torch.log(1 + torch.exp(-alpha * (s[labels == c] - margin)).sum()))
        push.append(torch.log(1 + torch.exp(alpha * (s[labels != c] + margin)).sum()))
    return torch.stack(pull).mean() + torch.stack(push).mean()


def loss_and_gradients(
    embeddings: Tensor, proxies: Tensor, labels: Tensor, margin: float, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    loss = ProxyAnchorLoss(len(proxies), proxies.shape[1], margin, alpha)
    loss.proxies = torch.nn.Parameter(proxies.clone())
    embeddings = embeddings.clone().requires_grad_()
    value = loss(embeddings, labels)
    value.backward()
    return value.detach(), embeddings.grad, loss.proxies.grad


ORIGINAL = [p for p in files("drml", "pa_*.npz") if "pa_baseline" not in str(p.id)]


@pytest.mark.parametrize("path", ORIGINAL)
def test_equals_the_original_code(path: Path) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in load(path).items()}
    alpha, margin = arrays["hp"].tolist()
    found = loss_and_gradients(
        arrays["in/x"], arrays["param/proxies"], arrays["in/labels"], margin, alpha
    )
    expected = (arrays["out/loss"], arrays["grad/x"], arrays["grad/proxies"])
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, single=arrays["in/x"].dtype == torch.float32)


@pytest.mark.parametrize("path", files("rcdml_dreml", "rcdml_loss__*.npz"))
def test_equals_the_baseline_of_rcdml(path: Path) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in load(path).items()}
    margin, alpha = arrays["mrg"].item(), arrays["alpha"].item()
    found = loss_and_gradients(arrays["X"], arrays["P"], arrays["T"], margin, alpha)
    expected = (arrays["pa_loss"], arrays["pa_dX"], arrays["pa_dP"])
    for ours, theirs in zip(found, expected, strict=True):
        assert_close(ours, theirs, single=arrays["X"].dtype == torch.float32)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 12),
    classes=st.integers(1, 9),
    dim=st.integers(1, 6),
    present=st.integers(1, 9),
    margin=st.sampled_from([0.0, 0.1, 0.5]),
    alpha=st.sampled_from([0.5, 8.0, 32.0, 64.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_paper_on_any_shape(
    batch: int, classes: int, dim: int, present: int, margin: float, alpha: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(batch, dim, generator=generator, dtype=torch.float64)
    proxies = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(min(present, classes), (batch,), generator=generator)
    inputs = [embeddings.clone().requires_grad_(), proxies.clone().requires_grad_()]
    expected = as_in_the_paper(inputs[0], inputs[1], labels, margin, alpha)
    expected.backward()
    found = loss_and_gradients(embeddings, proxies, labels, margin, alpha)
    for ours, theirs in zip(found, (expected, inputs[0].grad, inputs[1].grad), strict=True):
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 4, 4]],
    ids=["one class only", "one image per class", "duplicates"],
)
def test_extreme_scale_stays_finite_in_float32(labels: list[int]) -> None:
    proxies = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    embeddings = torch.stack([proxies[0], proxies[0], -proxies[1], proxies[2]])
    found = loss_and_gradients(embeddings, proxies, torch.tensor(labels), 0.4, 64.0)
    assert all(tensor.isfinite().all() for tensor in found)
    exact = as_in_the_paper(
        embeddings.double(), proxies.double(), torch.tensor(labels), margin=0.4, alpha=64.0
    )
    torch.testing.assert_close(found[0].double(), exact, rtol=1e-5, atol=1e-4)


def test_an_embedding_of_zeros_has_a_finite_gradient() -> None:
    found = loss_and_gradients(torch.zeros(2, 3), torch.ones(4, 3), torch.tensor([0, 1]), 0.1, 32.0)
    assert all(tensor.isfinite().all() for tensor in found)


def test_an_empty_batch_costs_nothing_and_moves_nothing() -> None:
    loss, to_embeddings, to_proxies = loss_and_gradients(
        torch.zeros(0, 3), torch.randn(4, 3), torch.zeros(0, dtype=torch.long), 0.1, 32.0
    )
    assert loss == 0
    assert to_embeddings.shape == (0, 3)
    assert not to_proxies.any()


def test_autocast_does_not_coarsen_the_loss() -> None:
    torch.manual_seed(0)
    loss = ProxyAnchorLoss(classes=5, dim=16, margin=0.1, alpha=32.0)
    embeddings, labels = torch.randn(8, 16), torch.arange(8) % 5
    with torch.autocast("cpu", torch.bfloat16):
        under = loss(embeddings, labels)
        rounded = loss(embeddings.bfloat16(), labels)
    assert under.dtype == rounded.dtype == torch.float32
    torch.testing.assert_close(under, loss(embeddings, labels), rtol=0, atol=0)


def test_cosines_ignore_length() -> None:
    rows, columns = torch.randn(3, 4), torch.randn(5, 4)
    expected = F.cosine_similarity(rows[:, None], columns[None], dim=-1)
    torch.testing.assert_close(pairwise_cosines(7 * rows, 0.1 * columns), expected)


def test_a_higher_cosine_with_the_own_proxy_costs_less() -> None:
    labels = torch.tensor([0])
    near, far = (
        proxy_anchor(torch.tensor([[cosine, 0.0]]), labels, 0.1, 32.0) for cosine in (0.9, 0.1)
    )
    assert near < far
