import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlray.losses.self_reinforced import self_reinforced


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**6))
def test_equals_the_equation(rows: int, compositors: int, parts: int, seed: int) -> None:
    torch.manual_seed(seed)
    logits = 3 * torch.randn(rows, compositors, parts, dtype=torch.float64)
    total = 0.0
    for m in range(compositors):
        for b in range(rows):
            chances = logits[b, m].exp() / logits[b, m].exp().sum()
            total -= math.log(max(chances.tolist())) / rows
    torch.testing.assert_close(self_reinforced(logits), torch.tensor(total).double())


def test_certainty_costs_nothing_and_indifference_most() -> None:
    certain = torch.tensor([[[1e4, 0.0, 0.0], [0.0, 1e4, -1e4]]], requires_grad=True)
    loss = self_reinforced(certain)
    loss.backward()
    assert loss == 0
    assert certain.grad.isfinite().all()
    indifferent = self_reinforced(torch.zeros(5, 2, 3))
    torch.testing.assert_close(indifferent, torch.tensor(2 * math.log(3)))


def test_the_gradient_strengthens_the_preferred_choice_alone() -> None:
    logits = torch.tensor([[[0.3, 0.1, 0.2]]], requires_grad=True)
    self_reinforced(logits).backward()
    assert (logits.grad < 0).tolist() == [[[True, False, False]]]
