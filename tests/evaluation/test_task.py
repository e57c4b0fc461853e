"""Queries and gallery apart, and pairs that do not count: equal to one loop over images."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import Tensor

from dmlray.errors import DataError
from dmlray.evaluation import incremental, neighbours
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.incremental import Growing
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from tests.evaluation import slow

COUNT = 60


def drawn_task(seed: int, *, grouped: bool, neighbouring: bool = False) -> RetrievalTask:
    """Some images are queries, some gallery, some both, some neither; labels may lack on a side."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(9, (COUNT,), generator=generator) ** 2 + 2**24
    groups = torch.randint(-1, 2, (COUNT,), generator=generator) if grouped else None
    if neighbouring:
        return RetrievalTask(labels, torch.arange(25), torch.arange(15, COUNT), groups)
    queries = torch.randperm(COUNT, generator=generator)[:25]
    gallery = torch.randperm(COUNT, generator=generator)[:40]
    return RetrievalTask(labels, queries, gallery, groups)


def drawn_rows(seed: int, ties: bool, width: int = 6) -> Tensor:
    return slow.rows_with_ties(seed, COUNT) if ties else slow.unit_rows(seed, COUNT, width)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    grouped=st.booleans(),
    neighbouring=st.booleans(),
    ties=st.booleans(),
    rows_per_block=st.sampled_from([7, 512]),
)
def test_equals_the_definition(
    seed: int, grouped: bool, neighbouring: bool, ties: bool, rows_per_block: int
) -> None:
    task = drawn_task(seed, grouped=grouped, neighbouring=neighbouring)
    embeddings, depths = drawn_rows(seed, ties).double(), (1, 3, 20, task.neighbours)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "ROWS", rows_per_block)
        found = retrieval_scores(embeddings, task, slow.names(depths))
    assert found == pytest.approx(slow.scores(embeddings, task, depths), abs=1e-12)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("neighbouring", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_ensembles_of_every_size_equal_the_definition(
    seed: int, neighbouring: bool, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (neighbours, incremental):
        monkeypatch.setattr(module, "ROWS", 7)
    task, depths = drawn_task(seed, grouped=grouped, neighbouring=neighbouring), (1, 3, 20)
    members = [drawn_rows(seed + number, ties=False, width=3 + number) for number in range(3)]
    weights, growing = (1.0, 2.5, 0.3), Growing(task, slow.names(depths))
    at_once = prefix_scores(members, task, slow.names(depths), weights=weights)
    for size, found in enumerate(at_once, start=1):
        pairs = zip(members[:size], weights, strict=False)
        joined = torch.cat([weight**0.5 * member.double() for member, weight in pairs], 1)
        expected = pytest.approx(slow.scores(joined, task, depths), abs=1e-6)
        assert found == expected
        assert growing.add(members[size - 1], weights[size - 1]) == expected


def test_all_images_as_queries_and_gallery_are_the_default() -> None:
    embeddings, labels, every = drawn_rows(0, ties=False), torch.arange(COUNT) % 7, torch.arange(60)
    found = retrieval_scores(embeddings, RetrievalTask(labels))
    assert retrieval_scores(embeddings, RetrievalTask(labels, every, every)) == found
    shuffled = every[torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))]
    apart = retrieval_scores(embeddings, RetrievalTask(labels, shuffled, shuffled))
    assert apart == pytest.approx(found, abs=1e-12)
    each_its_own = RetrievalTask(labels, groups=every)  # hides the query itself alone
    assert retrieval_scores(embeddings, each_its_own) == found


@pytest.mark.parametrize("seed", range(3))
def test_equals_pytorch_metric_learning_with_separate_references(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(40, (500,), generator=generator)
    labels[200:][labels[200:] == 3] = 4  # no reference of class 3: its queries do not count
    embeddings, numbers = slow.unit_rows(seed, 500, 16), torch.arange(500)
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(embeddings[:200], labels[:200], embeddings[200:], labels[200:])
    every_place = AccuracyCalculator(include=("mean_average_precision",), k=300)
    deep = every_place.get_accuracy(embeddings[:200], labels[:200], embeddings[200:], labels[200:])
    task = RetrievalTask(labels, numbers[:200], numbers[200:])
    metrics = ["precision_at_1", "r_precision", "map_at_r", "mean_average_precision_at_300"]
    ours = retrieval_scores(embeddings, task, metrics)
    names = ["precision_at_1", "r_precision", "mean_average_precision_at_r"]
    expected = [*(theirs[name] for name in names), deep["mean_average_precision"]]
    assert list(ours.values()) == pytest.approx(expected, abs=1e-5)


def test_images_of_the_query_s_label_and_group_are_ignored_those_of_others_are_not() -> None:
    """Market-1501's rule: person 0 seen by the query's camera is neither a hit nor a miss."""
    angles = torch.tensor([0.0, 0.1, 0.2, 0.3])
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)
    labels, cameras = torch.tensor([0, 0, 1, 0]), torch.tensor([5, 5, 5, 6])
    task = RetrievalTask(labels, torch.tensor([0]), torch.tensor([1, 2, 3]), cameras)
    found = retrieval_scores(embeddings, task, ["recall_at_1", "recall_at_2", "r_precision"])
    assert found == {"recall_at_1": 0, "recall_at_2": 1, "r_precision": 0}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"queries": torch.tensor([0, 60])}, "queries: indices of 0 to 60 .* Allowed: 0 to 59"),
        ({"gallery": torch.tensor([1, 1])}, "gallery: holds an image twice"),
        ({"gallery": torch.tensor([], dtype=torch.long)}, "gallery: .* at least one image"),
        ({"queries": torch.tensor([True, False])}, "queries: torch.bool"),
        ({"groups": torch.zeros(3)}, r"groups: shape \(3,\) .* Allowed: one of each image"),
    ],
)
def test_a_task_that_means_nothing_is_refused(change: dict[str, Tensor], said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        RetrievalTask(torch.zeros(COUNT), **change)
    assert "\n" not in str(caught.value)


def test_queries_without_any_match_are_refused() -> None:
    labels, numbers = torch.arange(COUNT) // 30, torch.arange(COUNT)
    task = RetrievalTask(labels, numbers[:30], numbers[30:])
    with pytest.raises(DataError, match="none of the 30 queries has an image of its class"):
        retrieval_scores(drawn_rows(0, ties=False), task)
    with pytest.raises(DataError, match="none of the 60 queries"):
        Growing(RetrievalTask(labels, groups=labels))
