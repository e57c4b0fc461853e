import torch

from dmlray.methods._head import linear_head, principal_head


def test_outputs_are_centred_decorrelated_and_of_unit_mean_variance() -> None:
    torch.manual_seed(0)
    features = torch.randn(200, 10) * torch.arange(1.0, 11) * 40 + 3
    head = linear_head(10, 6)
    principal_head(head, features)
    outputs = head(features)
    covariance = outputs.T @ outputs / len(outputs)
    torch.testing.assert_close(outputs.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance, torch.diag(covariance.diag()), atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance.diag().mean(), torch.tensor(1.0))
    assert (covariance.diag().diff() < 0).all(), "the largest direction comes first"


def test_directions_beyond_the_rank_are_small_but_alive() -> None:
    torch.manual_seed(0)
    features = torch.randn(5, 12)  # rank 4 once centred
    head = linear_head(12, 9)
    principal_head(head, features)
    lengths = head.weight.norm(dim=1)
    assert (lengths[4:] > 0).all()
    assert (lengths[4:] < 0.1 * lengths[:4].min()).all()


def test_equal_features_leave_the_head_as_it_was() -> None:
    head = linear_head(6, 3)
    before = head.weight.clone()
    principal_head(head, torch.full((7, 6), 2.3))
    assert torch.equal(head.weight, before)


def test_directions_are_kept_for_the_same_features_only() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(30, 6), torch.randn(30, 6)
    first, again, third = (linear_head(6, 3) for _ in range(3))
    principal_head(first, one)
    principal_head(again, one)
    principal_head(third, other)
    assert torch.equal(first.weight, again.weight)
    assert not torch.allclose(first.weight, third.weight)
