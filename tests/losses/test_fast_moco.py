import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dmlray.losses.fast_moco import fast_moco, queue_weights
from tests.golden_vectors import assert_close_idml_dcml as assert_close
from tests.golden_vectors import files, load


def units(rows: int, dim: int, seed: int) -> Tensor:
    vectors = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors.double())


def slowly(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float, fixed: bool) -> Tensor:
    """Section i3 of the specification, one pair at a time."""
    count, places, dim = len(queries), len(queue), queries.shape[1]
    distance = [[max((q - u).norm().item(), 0.5) for u in queue] for q in queries]
    log_weight = [
        [(2 - dim) * math.log(d) - (dim - 3) / 2 * math.log(1 - d * d / 4) for d in row]
        for row in distance
    ]
    largest = [max(row) if fixed else max(map(max, log_weight)) for row in log_weight]
    weight = [
        [
            max(math.exp(log_weight[b][j] - largest[b]), 1e-45) if distance[b][j] <= 1.4 else 1e-45
            for j in range(places)
        ]
        for b in range(count)
    ]
    costs = []
    for b in range(count):
        exponents = [queries[b] @ keys[b] / temperature]
        for j in range(places):
            total = sum(weight[b]) if fixed else sum(row[j] for row in weight)
            exponents.append(queries[b] @ queue[j] * weight[b][j] / total / temperature)
        costs.append(torch.stack(exponents).logsumexp(0) - exponents[0])
    return torch.stack(costs).mean()


@pytest.mark.parametrize("path", files("idml_dcml", "dcml_fastmoco_*.npz"))
def test_equals_the_authors_code(path: Path) -> None:
    arrays = {key: torch.from_numpy(value) for key, value in load(path).items()}
    queries, queue = arrays["query"].requires_grad_(), arrays["queue"]
    filled, fixed = torch.ones(len(queue), dtype=torch.bool), bool(arrays["fixed"])
    temperature = float(arrays["temperature"])
    loss = fast_moco(queries, arrays["key"], queue, filled, temperature, fixed)
    loss.backward()
    cosines = (queries @ queue.T).detach()
    weights = queue_weights(cosines, queries.shape[1], filled, fixed)
    own = (queries * arrays["key"]).sum(1, keepdim=True).detach()
    found = {
        "weights": weights,
        "logits": torch.cat([own, cosines * weights], 1),
        "loss": loss.detach(),
        "grad_query": queries.grad,
    }
    for key, value in found.items():
        assert_close(value, arrays[key], queries.dtype == torch.float32, name=key)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 6), st.integers(2, 40), st.booleans(), st.integers(0, 10**6)
)
def test_equals_the_equation(rows: int, places: int, dim: int, fixed: bool, seed: int) -> None:
    queries, keys, queue = (units(n, dim, seed + i) for i, n in enumerate((rows, rows, places)))
    filled = torch.ones(places, dtype=torch.bool)
    expected = slowly(queries, keys, queue, 0.1, fixed)
    torch.testing.assert_close(fast_moco(queries, keys, queue, filled, 0.1, fixed), expected)


@pytest.mark.parametrize("fixed", [False, True])
def test_empty_places_of_the_queue_do_not_count(fixed: bool) -> None:
    queries, keys, queue = units(4, 6, 0).requires_grad_(), units(4, 6, 1), units(7, 6, 2)
    filled = torch.tensor([True, True, False, True, False, False, False])
    loss = fast_moco(queries, keys, queue, filled, 0.1, fixed)
    torch.testing.assert_close(loss, slowly(queries, keys, queue[filled], 0.1, fixed))
    (gradient,) = torch.autograd.grad(loss, queries)
    assert gradient.isfinite().all()
    assert gradient.any()


@pytest.mark.parametrize("fixed", [False, True])
def test_an_empty_queue_costs_nothing(fixed: bool) -> None:
    queries = units(3, 5, 0).requires_grad_()
    loss = fast_moco(queries, queries, units(4, 5, 1), torch.zeros(4).bool(), 0.01, fixed)
    (gradient,) = torch.autograd.grad(loss, queries)
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("fixed", [False, True])
def test_extremes_stay_finite_in_float32(fixed: bool) -> None:
    """The same image, its antipode, and dimensions in which weights fall below float32."""
    queries = units(6, 512, 0).float().requires_grad_()
    queue = torch.cat([queries.detach(), -queries.detach(), units(5, 512, 1).float()])
    filled = torch.ones(len(queue), dtype=torch.bool)
    loss = fast_moco(queries, queries, queue, filled, 0.01, fixed)
    (gradient,) = torch.autograd.grad(loss, queries)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_the_weights_of_a_place_sum_to_one_and_those_of_a_query_if_fixed() -> None:
    cosines, filled = units(4, 8, 0) @ units(9, 8, 1).T, torch.arange(9) < 6
    per_place = queue_weights(cosines, 8, filled, fixed=False).sum(0)
    torch.testing.assert_close(per_place, filled.double())
    per_query = queue_weights(cosines, 8, filled, fixed=True).sum(1)
    torch.testing.assert_close(per_query, torch.ones(4).double())
