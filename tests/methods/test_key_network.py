import torch
from torch import nn

from dmlray.methods._momentum_encoder import FeatureQueue, MomentumEncoder


def test_the_oldest_keys_leave_the_queue_first() -> None:
    queue, seen = FeatureQueue(5, 2), torch.arange(16.0).view(8, 2)
    assert not queue.filled.any()
    queue.push(seen[:3])
    assert queue.filled.tolist() == [True] * 3 + [False] * 2
    queue.push(seen[3:6])
    queue.push(seen[6:])
    assert queue.filled.all()
    assert sorted(queue.keys.tolist()) == seen[3:].tolist()


def test_a_batch_larger_than_the_queue_leaves_its_last_keys() -> None:
    queue, keys = FeatureQueue(3, 1), torch.arange(8.0)[:, None]
    queue.push(keys)
    assert sorted(queue.keys.flatten().tolist()) == [5, 6, 7]
    queue.push(torch.tensor([[9.0]]))
    assert sorted(queue.keys.flatten().tolist()) == [6, 7, 9]


def test_a_queue_goes_on_where_it_was_saved() -> None:
    one, other = FeatureQueue(4, 1), FeatureQueue(4, 1)
    one.push(torch.arange(3.0)[:, None])
    other.load_state_dict(one.state_dict())
    for queue in (one, other):
        queue.push(torch.tensor([[7.0], [8.0]]))
    assert torch.equal(one.keys, other.keys)
    assert sorted(other.keys.flatten()) == [1, 2, 7, 8]


def test_a_slow_copy_follows_without_training() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    copy = MomentumEncoder(model)
    before = copy.get_parameter("model.0.weight").clone()
    nn.init.constant_(model.get_parameter("0.weight"), 3.0)
    copy.update(model, 0.1)
    torch.testing.assert_close(copy.get_parameter("model.0.weight"), 0.9 * before + 0.1 * 3.0)
    nn.Sequential(copy).train()
    assert not any(module.training for module in copy.modules())
    assert not any(parameter.requires_grad for parameter in copy.parameters())
    copy.update(model, 1.0)
    assert torch.equal(copy.get_parameter("model.0.weight"), model.get_parameter("0.weight"))
