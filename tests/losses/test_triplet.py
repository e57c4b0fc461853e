import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dmlray.losses.triplet import triplet_loss


@settings(max_examples=40, deadline=None)
@given(
    triplets=st.integers(0, 12),
    margin=st.sampled_from([0.0, 0.2, 1.0]),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_mean_over_costly_triplets(
    triplets: int, margin: float, share: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    near, far, lot = torch.rand(3, triplets, generator=generator, dtype=torch.float64).unbind()
    near, far = near.clone().requires_grad_(), far.clone().requires_grad_()
    costs = [near[t] - far[t] + margin for t in range(triplets) if lot[t] < share]
    costly = [cost for cost in costs if cost > 0]
    found = triplet_loss(near, far, lot < share, margin)
    found.backward()
    expected = sum(float(cost.detach()) for cost in costly) / max(1, len(costly))
    torch.testing.assert_close(found.item(), expected)
    pulled = [lot[t] < share and near[t] - far[t] + margin > 0 for t in range(triplets)]
    slopes = torch.tensor(pulled, dtype=torch.float64) / max(1, len(costly))
    torch.testing.assert_close(near.grad, slopes)
    torch.testing.assert_close(far.grad, -slopes)
