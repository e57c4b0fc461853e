import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmlray.methods._triplets import (
    Sharing,
    Triplets,
    by_distance,
    class_shared,
    draw,
    intra_class,
    margin_cost,
)

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=12).map(torch.tensor)


def units(labels: Tensor, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(len(labels), 6).double())


def classes(triplets: Triplets, labels: Tensor) -> list[tuple[int, int, int]]:
    """Of the usable triplets."""
    rows = torch.stack(triplets[:3], 1)[triplets.usable]
    return [tuple(row) for row in labels[rows].tolist()]


@settings(max_examples=40, deadline=None)
@given(LABELS, st.integers(0, 10**6))
def test_by_distance_compares_another_of_the_class_with_one_outside(
    labels: Tensor, seed: int
) -> None:
    triplets = by_distance(units(labels, seed), labels, 0.5)
    counts = labels.bincount()[labels]
    assert triplets.usable.tolist() == ((counts > 1) & (counts < len(labels))).tolist()
    assert all(a == p != n for a, p, n in classes(triplets, labels))
    assert (triplets.anchors != triplets.positives)[triplets.usable].all()


@settings(max_examples=40, deadline=None)
@given(LABELS, st.sampled_from(["standard", "full"]), st.integers(0, 10**6))
def test_class_shared_takes_three_classes(labels: Tensor, sharing: Sharing, seed: int) -> None:
    triplets = class_shared(units(labels, seed), labels, sharing, 0.5)
    assert triplets.usable.all() == (len(labels.unique()) > 2)
    assert all(len(set(row)) == 3 for row in classes(triplets, labels))


def test_random_sharing_crosses_classes_but_not_images() -> None:
    labels = torch.arange(30).repeat_interleave(2)
    triplets = class_shared(units(labels, 0), labels, "random", 0.5)
    assert triplets.usable.all()
    assert (triplets.anchors != triplets.positives).all()
    assert (labels[triplets.anchors] != labels[triplets.positives]).float().mean() > 0.8


@settings(max_examples=40, deadline=None)
@given(LABELS)
def test_intra_class_stays_within_one_class(labels: Tensor) -> None:
    triplets = intra_class(labels)
    assert len(classes(triplets, labels)) == len(labels)
    assert all(a == p == n for a, p, n in classes(triplets, labels))


def test_intra_class_draws_classes_alike_whatever_their_size() -> None:
    torch.manual_seed(0)
    labels = torch.tensor([0] * 1 + [1] * 9)
    anchors = torch.cat([intra_class(labels).anchors for _ in range(300)])
    assert labels[anchors].float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_full_sharing_prefers_rare_distances_for_positives_too() -> None:
    """In 128 dimensions near images are rare, so the near image is nearly always drawn."""
    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(12, 128).double())
    vectors[1] = torch.nn.functional.normalize(vectors[0] + 0.05 * vectors[1], dim=0)
    vectors[2] = torch.nn.functional.normalize(vectors[0] + 0.05 * vectors[2], dim=0)
    labels = torch.arange(12)
    full = [class_shared(vectors, labels, "full", 0.5) for _ in range(50)]
    assert all({t.positives[0].item(), t.negatives[0].item()} == {1, 2} for t in full)
    standard = {class_shared(vectors, labels, "standard", 0.5).positives[0].item() for _ in full}
    assert len(standard) > 5


def test_draws_follow_the_weights() -> None:
    torch.manual_seed(0)
    weights = torch.tensor([1.0, 2.0, 5.0, 8.0]).log().expand(20_000, 4)
    allowed = torch.tensor([True, True, True, False]).expand(20_000, 4)
    shares = draw(weights, allowed).bincount(minlength=4) / 20_000
    torch.testing.assert_close(shares, torch.tensor([1, 2, 5, 0]) / 8, atol=0.015, rtol=0)


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 2], [0]])
def test_batches_without_triplets_cost_nothing(labels: list[int]) -> None:
    targets = torch.tensor(labels)
    rows = units(targets, 0).requires_grad_()
    boundaries = torch.full((len(labels),), 1.2, dtype=torch.float64, requires_grad=True)
    triplets = by_distance(rows.detach(), targets, 0.5)
    cost = margin_cost(rows, triplets, boundaries, 0.2, "triplets")
    cost.backward()
    assert cost == 0
    assert not rows.grad.any()
    assert not boundaries.grad.any()
