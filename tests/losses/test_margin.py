import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmlray.losses.margin import Count, margin_loss


def as_in_the_paper(
    near: Tensor, far: Tensor, boundaries: Tensor, usable: Tensor, margin: float, count: Count
) -> Tensor:
    """Equation 4 of arXiv 1706.07567, one triplet at a time."""
    total, triplets, halves = torch.zeros((), dtype=near.dtype), 0, 0
    for t in range(len(near)):
        if usable[t]:
            pull = max(near[t] - boundaries[t] + margin, near.new_zeros(()))
            push = max(boundaries[t] - far[t] + margin, near.new_zeros(()))
            total = total + pull + push
            triplets += bool(pull > 0 or push > 0)
            halves += bool(pull > 0) + bool(push > 0)
    return total / max(1, triplets if count == "triplets" else halves)


@settings(max_examples=60, deadline=None)
@given(
    triplets=st.integers(0, 12),
    margin=st.sampled_from([0.0, 0.2, 1.0]),
    count=st.sampled_from(["triplets", "halves"]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_paper_on_any_shape(
    triplets: int, margin: float, count: Count, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    near, far, boundaries, lot = torch.rand(
        4, triplets, generator=generator, dtype=torch.float64
    ).unbind()
    inputs = [tensor.clone().requires_grad_() for tensor in (near, 2 * far, boundaries)]
    slow = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    expected = as_in_the_paper(slow[0], slow[1], slow[2], lot < share, margin, count)
    found = margin_loss(inputs[0], inputs[1], inputs[2], lot < share, margin, count)
    torch.testing.assert_close(found, expected)
    found.backward()
    (expected + 0 * sum(tensor.sum() for tensor in slow)).backward()
    for ours, theirs in zip(inputs, slow, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_nothing_to_pay_is_zero_and_can_be_learnt_from() -> None:
    near, far = torch.tensor([0.1]).requires_grad_(), torch.tensor([1.9]).requires_grad_()
    for count in ("triplets", "halves"):
        loss = margin_loss(near, far, torch.ones(1), torch.tensor([True]), 0.2, count)
        loss.backward()
        assert loss == 0
        assert near.grad == 0
        assert far.grad == 0


def test_a_triplet_with_two_costly_halves_counts_once_or_twice() -> None:
    near, far, usable = torch.tensor([1.5]), torch.tensor([0.5]), torch.tensor([True])
    once, twice = (
        margin_loss(near, far, torch.ones(1), usable, 0.2, count)
        for count in ("triplets", "halves")
    )
    torch.testing.assert_close(once, torch.tensor(1.4))
    torch.testing.assert_close(twice, torch.tensor(0.7))
