from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dmlray.errors import ConfigError, DataError
from dmlray.evaluation import neighbours as module
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.products import Part, similarity
from dmlray.evaluation.ranking import first_hits
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask, classes_of
from tests.evaluation import slow
from tests.golden_vectors import files, load

DEPTHS = (1, 2, 8, 50)


def members_of(widths: tuple[int, ...], count: int = 130) -> list[torch.Tensor]:
    return [slow.unit_rows(seed, count, width) for seed, width in enumerate(widths)]


@pytest.mark.parametrize("rows_per_block", [9, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_size_equals_concatenation(
    dtype: torch.dtype, rows_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", rows_per_block)
    members, labels = members_of((4, 7, 1, 12)), slow.unequal_labels(0, 130)
    members = [member.to(dtype) for member in members]
    found = prefix_scores(members, RetrievalTask(labels), standard_metrics(DEPTHS))
    for size, scores in enumerate(found, start=1):
        joined = torch.cat(members[:size], 1).double()
        assert scores == pytest.approx(
            retrieval_scores(joined, RetrievalTask(labels), standard_metrics(DEPTHS)), abs=1e-6
        )


def test_a_weight_is_the_factor_of_the_members_cosines() -> None:
    members, labels, weights = members_of((3, 5, 4)), slow.unequal_labels(0, 130), (2.0, 0.1, 7.0)
    found = prefix_scores(members, RetrievalTask(labels), weights=weights)
    joined = torch.cat([w**0.5 * m for w, m in zip(weights, members, strict=True)], 1)
    assert found[-1] == pytest.approx(retrieval_scores(joined, RetrievalTask(labels)), abs=1e-6)


def test_members_may_lie_in_read_only_files(tmp_path: Path) -> None:
    members, labels = members_of((4, 6)), slow.unequal_labels(0, 130)
    for index, member in enumerate(members):
        np.save(tmp_path / f"{index}.npy", member.numpy())
    mapped = [np.load(tmp_path / f"{index}.npy", mmap_mode="r") for index in range(2)]
    assert prefix_scores(mapped, RetrievalTask(labels)) == prefix_scores(
        members, RetrievalTask(labels)
    )


def test_members_of_half_and_double_precision_mix() -> None:
    members, labels = members_of((4, 6)), slow.unequal_labels(0, 130)
    mixed = [members[0].half(), members[1].double()]
    joined = torch.cat([member.double() for member in mixed], 1)
    expected = retrieval_scores(joined, RetrievalTask(labels))
    assert prefix_scores(mixed, RetrievalTask(labels))[-1] == pytest.approx(expected, abs=1e-9)


def test_an_opposite_image_does_not_rank_behind_the_query_itself() -> None:
    embeddings = torch.tensor([[1.0], [-1.0], [-1.0]])
    scores = prefix_scores(
        [embeddings] * 3, RetrievalTask(torch.tensor([0, 0, 1])), standard_metrics((1, 2))
    )
    assert [s["recall_at_1"] for s in scores] == [0.5] * 3  # image 1 finds its twin, of class 1
    assert scores[-1]["recall_at_2"] == 1


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"members": []}, ConfigError, "0 members are not allowed"),
        ({"weights": [1.0]}, ConfigError, "one number above 0 for each of the 2 members"),
        ({"weights": [1.0, -1.0]}, ConfigError, "one number above 0"),
        ({"members": members_of((2, 3), 129)}, DataError, "ensemble member 0: embeddings of shape"),
        ({"members": [*members_of((2,)), torch.full((130, 1), torch.nan)]}, DataError, "member 1"),
        ({"task": RetrievalTask(torch.arange(130))}, DataError, "alone in its class"),
        ({"metrics": ["recall_at_130"]}, ConfigError, "recall_at_130 is not .* K of 1 to 129"),
    ],
)
def test_what_cannot_be_merged_is_named(
    change: dict[str, Any], error: type[Exception], said: str
) -> None:
    task = RetrievalTask(torch.zeros(130))
    given: dict[str, Any] = {
        "members": members_of((2, 3)),
        "task": task,
        "metrics": ["recall_at_1"],
    }
    with pytest.raises(error, match=said) as caught:
        prefix_scores(**(given | change))
    assert "\n" not in str(caught.value)


def recalls(scores: dict[str, float]) -> list[float]:
    return [value for name, value in scores.items() if name.startswith("recall_at_")]


def read(path: Path) -> tuple[dict[str, np.ndarray], list[Tensor], Tensor, list[int], float]:
    """Golden arrays, unit members, labels, depths and the tolerance.

    The authors computed in float32, in which one query may fall differently.
    """
    golden = load(path)
    members = list(F.normalize(torch.from_numpy(golden["raw_logits"]), dim=-1))
    labels, depths = torch.from_numpy(golden["labels"]), golden["ranks"].tolist()
    slack = 1e-6 if members[0].dtype == torch.float64 else 1.01 / len(labels)
    return golden, members, labels, depths, slack


def share(labels: torch.Tensor) -> float:
    """Of images with another of their class: the authors count the rest as queries that miss."""
    return float(((labels[:, None] == labels).sum(1) > 1).double().mean())


@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_merge__*.npz"))
def test_equals_dreml_with_each_image_hidden_from_itself(path: Path) -> None:
    golden, members, labels, depths, slack = read(path)
    found = np.array(
        recalls(prefix_scores(members, RetrievalTask(labels), standard_metrics(depths))[-1])
    ) * share(labels)
    assert found == pytest.approx(golden["recall_self_excluded_NOT_OFFICIAL"], abs=slack)


@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_merge__*.npz"))
def test_equals_dreml_at_every_size_once_its_mask_of_minus_one_is_put_back(path: Path) -> None:
    """There an image ranks behind all others above -1, and finding it counts as a hit."""
    golden, members, labels, depths, slack = read(path)
    prefixes = prefix_scores(members, RetrievalTask(labels), standard_metrics(depths))
    for size, ours in enumerate(prefixes, start=1):
        joined = torch.cat(members[:size], 1)
        similarities = (joined @ joined.T).fill_diagonal_(-torch.inf)
        numbers = torch.arange(len(labels))
        exact, classes = similarity(Part(joined, joined)), classes_of(labels, labels)
        first = first_hits(similarities, classes, numbers, exact, numbers)
        itself = (similarities > -1).sum(1)
        has_mate = (labels[:, None] == labels).sum(1) > 1
        correct = [float((first[has_mate] < k).double().mean()) for k in depths]
        assert recalls(ours) == pytest.approx(correct, abs=slack)
        official = [float(((first < k) | (itself < k)).double().mean()) for k in depths]
        assert official == pytest.approx(golden["recall_prefix_leftthomas"][size - 1], abs=slack)
        assert official == pytest.approx(golden["recall_prefix_littleredxh"][size - 1], abs=slack)
    assert itself.tolist() == golden["self_rank_after_mask"].tolist()


@pytest.mark.parametrize("path", files("rcdml_dreml", "dreml_merge__*.npz"))
def test_single_members_and_a_gallery_apart_equal_dreml(path: Path) -> None:
    golden, members, labels, depths, slack = read(path)
    for member, expected in zip(members, golden["recall_single"], strict=True):
        found = np.array(
            recalls(retrieval_scores(member, RetrievalTask(labels), standard_metrics(depths)))
        ) * share(labels)
        assert found == pytest.approx(expected, abs=slack)
    joined, split = torch.cat(members, 1), int(golden["num_query"])
    torch.testing.assert_close(joined, torch.from_numpy(golden["merged"]), rtol=1e-4, atol=1e-6)
    apart = golden["ranks_query_gallery"].tolist()
    numbers = torch.arange(len(labels))
    task = RetrievalTask(labels, numbers[:split], numbers[split:])
    apart_scores = retrieval_scores(joined, task, [f"recall_at_{k}" for k in apart])
    known = float(torch.isin(labels[:split], labels[split:]).double().mean())  # the rest are misses
    assert np.array(list(apart_scores.values())) * known == pytest.approx(
        golden["recall_query_gallery"], abs=slack * len(labels) / split
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_a_gpu_merges_members_from_host_memory() -> None:
    members, labels = members_of((4, 6)), slow.unequal_labels(0, 130)
    found = prefix_scores(members, RetrievalTask(labels), device="cuda")
    for ours, expected in zip(found, prefix_scores(members, RetrievalTask(labels)), strict=True):
        assert ours == pytest.approx(expected, abs=0.02)
