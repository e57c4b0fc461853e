from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dmlray.errors import ConfigError
from dmlray.evaluation import neighbours as module
from dmlray.evaluation.neighbours import highest, nearest, top
from dmlray.evaluation.task import RetrievalTask
from tests.evaluation import slow


@pytest.mark.parametrize("rows_per_block", [1, 7, 512])
@pytest.mark.parametrize("k", [1, 3, 39])
@pytest.mark.parametrize("draw", [slow.rows_with_ties, slow.unit_rows])
def test_finds_what_plain_sorting_finds(
    draw: Callable[..., Tensor], k: int, rows_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", rows_per_block)
    embeddings = draw(0, 40).double()
    task = RetrievalTask(torch.arange(40))
    expected = [slow.ranked(embeddings, task, query)[:k] for query in range(40)]
    assert nearest(embeddings, k).indices.tolist() == expected


@pytest.mark.parametrize("k", [1, 2, 15, 300])  # few among many are looked for another way
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_highest_values_are_those_of_sorting(k: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    similarities = torch.randn(150, 1100, dtype=dtype)
    similarities[::7, ::3] = 1.0
    similarities[5, 1:] = -torch.inf
    expected = similarities.sort(1).values[:, -k:]
    assert torch.equal(highest(similarities, k), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_similarities_belong_to_the_indices(dtype: torch.dtype) -> None:
    embeddings = slow.unit_rows(1, 600).to(dtype)
    found = nearest(embeddings, 5)
    expected = (embeddings @ embeddings.T).gather(1, found.indices)
    assert found.similarities.dtype == dtype
    torch.testing.assert_close(found.similarities, expected, rtol=0, atol=1e-6)


def test_many_rows_cut_between_equals_are_each_mended() -> None:
    similarities = torch.zeros(200, 30)
    similarities[:, 20] = 1
    assert top(similarities, 4).indices.tolist() == [[20, 0, 1, 2]] * 200


@pytest.mark.parametrize("values", [3, 50, 10**6])
def test_few_among_many_are_found_by_runs_as_by_sorting(
    values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RUN", 5)
    generator = torch.Generator().manual_seed(values)
    similarities = torch.randint(values, (60, 1003), generator=generator).float()
    expected, order = similarities.sort(dim=1, descending=True, stable=True)
    found = top(similarities, 7)
    assert found.indices.equal(order[:, :7])
    assert found.similarities.equal(expected[:, :7])


def test_blocks_on_a_gpu_follow_its_free_memory() -> None:
    like = torch.empty(60_502, 0)  # (N, D) of Stanford Online Products: 242 kB a row
    rows = [module.rows_within(free, like) for free in (0, 10**9, 2 * 10**9, 10**12)]
    assert rows == [1, 258, 516, module.MOST_ROWS_ON_GPU]


def test_what_torch_keeps_of_old_tensors_is_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.cuda
    monkeypatch.setattr(gpu, "mem_get_info", lambda device: (100, 1000))
    monkeypatch.setattr(gpu, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(gpu, "memory_allocated", lambda device: 50)
    assert module.free_memory(torch.device("cuda")) == 750


def test_twins_find_each_other_and_never_themselves() -> None:
    embeddings = slow.unit_rows(2, 10).repeat(2, 1)
    first = nearest(embeddings, 1).indices[:, 0]
    assert first.tolist() == [*range(10, 20), *range(10)]


def test_a_gallery_apart_keeps_the_item_of_the_same_index() -> None:
    embeddings = slow.unit_rows(3, 10)
    assert nearest(embeddings, 1, embeddings).indices[:, 0].tolist() == list(range(10))


@pytest.mark.parametrize("k", [0, 10])
def test_there_are_only_n_minus_one_neighbours(k: int) -> None:
    with pytest.raises(ConfigError, match=f"{k} is not allowed. Allowed: 1 to 9"):
        nearest(slow.unit_rows(4, 10), k)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_finds_the_same() -> None:
    embeddings = slow.rows_with_ties(0, 700)
    found = nearest(embeddings.cuda(), 20).indices.cpu()
    assert found.equal(nearest(embeddings, 20).indices)
