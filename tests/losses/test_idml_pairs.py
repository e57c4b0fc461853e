"""The pair losses that IDML makes introspective, each retyped slowly, and what holds of all."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmlray.losses.contrastive import contrastive
from dmlray.losses.idml import introspective_distances, semantic_distances
from dmlray.losses.idml_pairs import IntrospectivePairs, PairForm
from dmlray.losses.multi_similarity import multi_similarity
from dmlray.losses.semihard_triplet import semihard_triplet
from dmlray.losses.weighted_margin import negative_probabilities, weighted_margin

FORMS = get_args(PairForm)


def contrastive_slowly(d: Tensor, y: list[int], margin: float) -> float:
    n = range(len(y))
    pull = [d[i, j].item() for i in n for j in n if i != j and y[i] == y[j]]
    push = [margin - d[i, j].item() for i in n for j in n if y[i] != y[j]]
    return sum(sum(c) / max(len(c), 1) for c in ([x for x in p if x > 0] for p in (pull, push)))


def triplet_slowly(d: Tensor, mined: Tensor, y: list[int], margin: float) -> float:
    costs = []
    for i in range(len(y)):
        negatives = [k for k in range(len(y)) if y[k] != y[i]]
        for j in range(len(y)):
            if j == i or y[j] != y[i] or not negatives:
                continue
            beyond = [k for k in negatives if mined[i, k] > mined[i, j]]
            if beyond:
                chosen = min(beyond, key=lambda k: mined[i, k].item())
            else:
                chosen = max(negatives, key=lambda k: mined[i, k].item())
            costs.append(max(0.0, (d[i, j] ** 2 - d[i, chosen] ** 2).item() + margin))
    return sum(costs) / max(len(costs), 1)


def multi_similarity_slowly(s: Tensor, mined: Tensor, y: list[int]) -> float:
    alpha, beta, threshold, slack = 2.0, 50.0, 0.5, 0.1
    total = 0.0
    for i in range(len(y)):
        own = [j for j in range(len(y)) if j != i and y[j] == y[i]]
        other = [j for j in range(len(y)) if y[j] != y[i]]
        if not own or not other:
            continue
        hard_other = [j for j in other if mined[i, j] + slack > min(mined[i, k] for k in own)]
        hard_own = [j for j in own if mined[i, j] - slack < max(mined[i, k] for k in other)]
        if not hard_own or not hard_other:
            continue
        pull = sum(math.exp(-alpha * (s[i, j].item() - threshold)) for j in hard_own)
        push = sum(math.exp(beta * (s[i, j].item() - threshold)) for j in hard_other)
        total += math.log1p(pull) / alpha + math.log1p(push) / beta
    return total / len(y)


def chances_slowly(d: Tensor, y: list[int], dim: int, i: int) -> list[float]:
    """Row i of the chances, from the density of distances on the sphere (arXiv 1706.07567)."""
    weights = []
    for j in range(len(y)):
        x = max(d[i, j].item(), 0.5)
        density = x ** (dim - 2) * (1 - x * x / 4) ** ((dim - 3) / 2) if x < 1.4 else 1.0
        weights.append(1 / density if y[j] != y[i] and d[i, j] < 1.4 else 0.0)
    if not sum(weights):
        weights = [float(label != y[i]) for label in y]
    return [weight / sum(weights) for weight in weights]


def draw(seed: int, batch: int, dim: int, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    m, v = torch.randn(2, batch, dim, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (batch,), generator=generator)
    return m / m.norm(dim=1, keepdim=True), v, labels


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 10),
    dim=st.integers(2, 6),
    classes=st.integers(1, 10),
    seed=st.integers(0, 10_000),
)
def test_each_loss_equals_its_equation(batch: int, dim: int, classes: int, seed: int) -> None:
    m, v, labels = draw(seed, batch, dim, classes)
    d, mined, y = introspective_distances(m, v), semantic_distances(m), labels.tolist()
    assert contrastive(d, labels, 0.9).item() == pytest.approx(contrastive_slowly(d, y, 0.9))
    found = semihard_triplet(d, mined, labels, 0.2).item()
    assert found == pytest.approx(triplet_slowly(d, mined, y, 0.2))
    s, plain = 1 - d**2 / 2, 1 - mined**2 / 2
    found = multi_similarity(s, plain, labels).item()
    assert found == pytest.approx(multi_similarity_slowly(s, plain, y))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(2, 8),
    dim=st.integers(2, 12),
    classes=st.integers(2, 6),
    seed=st.integers(0, 10_000),
)
def test_negatives_are_drawn_against_their_density(
    batch: int, dim: int, classes: int, seed: int
) -> None:
    m, _, labels = draw(seed, batch, dim, classes)
    d, y = semantic_distances(m), labels.tolist()
    found = negative_probabilities(d, labels[:, None] != labels, dim)
    for i in range(batch):
        if len(set(y)) > 1:
            assert found[i].tolist() == pytest.approx(chances_slowly(d, y, dim, i), abs=1e-9)


def test_margin_loss_equals_its_equation_where_no_draw_is_left_to_chance() -> None:
    labels = torch.tensor([0, 0, 1])  # a single negative for each anchor of a pair
    d = torch.tensor([[0.0, 0.9, 1.1], [0.9, 0.0, 1.3], [1.1, 1.3, 0.0]])
    found = weighted_margin(d, d, 8, labels, torch.tensor([1.0, 1.0, 1.2]), 0.2)
    # anchor 0: 0.9 - 1 + 0.2 = 0.1, and 1 - 1.1 + 0.2 = 0.1; anchor 1: 0.1, and none
    assert found.item() == pytest.approx((0.2 + 0.1) / 2, rel=1e-5)


def loss_and_gradients(form: PairForm, m: Tensor, v: Tensor, labels: Tensor) -> list[Tensor]:
    m, v = m.clone().requires_grad_(), v.clone().requires_grad_()
    criterion = IntrospectivePairs(form, 10)
    loss = criterion(m, v, labels)
    loss.backward()
    return [loss.detach(), m.grad, v.grad, *(p.grad for p in criterion.parameters())]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "labels",
    [[0, 0, 0, 0], [0, 1, 2, 3], [0, 0, 4, 4], [7]],
    ids=["one class only", "one image per class", "pairs", "one image"],
)
@pytest.mark.parametrize("duplicates", [True, False])
def test_loss_and_gradients_are_finite(form: PairForm, labels: list[int], duplicates: bool) -> None:
    m, v, _ = draw(0, len(labels), 4, 4)
    if duplicates:
        m, v = m[:1].expand_as(m), 100 * v
    found = loss_and_gradients(form, m.float(), v.float(), torch.tensor(labels))
    assert all(tensor.isfinite().all() for tensor in found)


@pytest.mark.parametrize("form", FORMS)
def test_both_embeddings_and_the_boundaries_learn(form: PairForm) -> None:
    m, v, _ = draw(3, 12, 4, 4)
    found = loss_and_gradients(form, m.float(), v.float(), torch.arange(12) % 3)
    assert all(tensor.any() for tensor in found)
    assert found[0] > 0
    assert len(found) == (4 if form == "margin" else 3)


@pytest.mark.parametrize("form", FORMS)
def test_a_class_drawn_together_costs_less(form: PairForm) -> None:
    torch.manual_seed(0)
    labels, noise = torch.arange(12) % 3, torch.randn(12, 8)
    together = torch.eye(8)[labels] + 0.05 * noise
    criterion, v = IntrospectivePairs(form, 3), torch.zeros(12, 8)
    assert criterion(together, v, labels) < criterion(noise, v, labels)


@pytest.mark.parametrize("form", FORMS)
def test_autocast_does_not_coarsen_the_loss(form: PairForm) -> None:
    m, v, _ = draw(1, 8, 16, 4)
    labels, criterion = torch.arange(8) % 3, IntrospectivePairs(form, 3)
    torch.manual_seed(0)
    exact = criterion(m.float(), v.float(), labels)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        under = criterion(m.float(), v.float(), labels)
    assert under.dtype == torch.float32
    assert torch.equal(under, exact)
