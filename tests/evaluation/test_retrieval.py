from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from torch import Tensor

from dmlray.errors import ConfigError, DataError
from dmlray.evaluation import neighbours as module
from dmlray.evaluation.metrics import standard_metrics
from dmlray.evaluation.neighbours import nearest
from dmlray.evaluation.retrieval import retrieval_scores, retrieval_values
from dmlray.evaluation.task import RetrievalTask
from tests.evaluation import slow
from tests.golden_vectors import files, load


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(12, 60),
    ties=st.booleans(),
    double=st.booleans(),
    rows_per_block=st.sampled_from([1, 7, 512]),
)
def test_equals_the_definition(
    seed: int, count: int, ties: bool, double: bool, rows_per_block: int
) -> None:
    embeddings = (slow.rows_with_ties if ties else slow.unit_rows)(seed, count)
    embeddings = embeddings.double() if double or not ties else embeddings
    task, depths = RetrievalTask(slow.unequal_labels(seed, count)), (1, 2, 7, count - 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS", rows_per_block)
        found = retrieval_scores(embeddings, task, slow.names(depths))
        standard = retrieval_scores(embeddings, task, standard_metrics(depths))
    assert found == pytest.approx(slow.scores(embeddings, task, depths), abs=1e-12)
    assert standard == {name: found[name] for name in standard}


@pytest.mark.parametrize("draw", [slow.rows_with_ties, slow.unit_rows])
def test_recall_deeper_than_the_largest_class_equals_the_definition(
    draw: Callable[..., Tensor],
) -> None:
    embeddings = draw(5, 90).double()
    task = RetrievalTask(torch.arange(90) // 2 % 43)  # pairs and few larger classes
    depths = (1, 4, 10, 50, 89)
    expected = slow.scores(embeddings, task, depths)
    found = retrieval_scores(embeddings, task, standard_metrics(depths))
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-12)


def test_images_alone_in_their_class_are_gallery_but_no_query() -> None:
    angles = torch.tensor([0.0, 0.2, 0.3])  # the lone second stands between the pair
    embeddings = torch.stack([angles.cos(), angles.sin()], 1)
    found = retrieval_scores(
        embeddings, RetrievalTask(torch.tensor([0, 1, 0])), standard_metrics((1, 2))
    )
    assert found == {"recall_at_1": 0, "recall_at_2": 1, "r_precision": 0, "map_at_r": 0}


@pytest.mark.parametrize("seed", range(3))
def test_equals_pytorch_metric_learning(seed: int) -> None:
    embeddings = slow.unit_rows(seed, 700, 16)
    labels = torch.from_numpy(np.random.default_rng(seed).geometric(0.03, 700))
    calculator = AccuracyCalculator(
        include=("precision_at_1", "r_precision", "mean_average_precision_at_r"),
        k="max_bin_count",
        device=torch.device("cpu"),
    )
    theirs = calculator.get_accuracy(embeddings, labels)
    ours = retrieval_scores(embeddings, RetrievalTask(labels), standard_metrics((1,)))
    assert ours["recall_at_1"] == pytest.approx(theirs["precision_at_1"], abs=1e-6)
    assert ours["r_precision"] == pytest.approx(theirs["r_precision"], abs=1e-5)
    assert ours["map_at_r"] == pytest.approx(theirs["mean_average_precision_at_r"], abs=1e-5)


def test_half_precision_and_gradients_are_accepted() -> None:
    embeddings = slow.unit_rows(0, 40)
    labels = slow.unequal_labels(0, 40)
    half = embeddings.half()
    assert retrieval_scores(half, RetrievalTask(labels)) == retrieval_scores(
        half.float(), RetrievalTask(labels)
    )
    wanting = embeddings.clone().requires_grad_()
    assert retrieval_scores(wanting, RetrievalTask(labels)) == retrieval_scores(
        embeddings, RetrievalTask(labels)
    )


def test_large_but_finite_embeddings_are_no_mistake() -> None:
    embeddings, labels = torch.full((40, 4), 6e4).half(), slow.unequal_labels(0, 40)
    assert not embeddings.sum().isfinite()
    assert retrieval_scores(embeddings, RetrievalTask(labels))["recall_at_8"] <= 1


def test_embeddings_made_in_inference_mode_can_be_scored_outside_it() -> None:
    with torch.inference_mode():
        embeddings = slow.unit_rows(0, 40) * 1
    labels = slow.unequal_labels(0, 40)
    assert retrieval_scores(embeddings, RetrievalTask(labels)) == retrieval_scores(
        embeddings.clone(), RetrievalTask(labels)
    )


def test_collapsed_embeddings_are_scored_by_index_alone() -> None:
    found = retrieval_scores(
        torch.ones(2000, 4) / 2,
        RetrievalTask(torch.arange(2000) // 1000),
        standard_metrics((1, 1000)),
    )
    assert found["recall_at_1"] == pytest.approx(0.5, abs=1e-3)
    assert found["r_precision"] == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("embeddings", "labels", "said"),
    [
        (torch.eye(3), torch.arange(3), "each of the 3 images is alone"),
        (torch.eye(3), torch.zeros(4), r"shape \(3, 3\) and labels of shape \(4,\) do not fit"),
        (torch.empty(0, 3), torch.zeros(0), "N of at least 1"),
        (torch.tensor([[1.0], [torch.nan], [torch.inf]]), torch.zeros(3), "2 embeddings hold NaN"),
    ],
)
def test_data_that_cannot_be_scored_is_named(embeddings: Tensor, labels: Tensor, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        retrieval_scores(embeddings, RetrievalTask(labels), standard_metrics((1,)))
    assert "\n" not in str(caught.value)


def test_k_beyond_the_gallery_names_what_is_allowed() -> None:
    task, names = RetrievalTask(torch.zeros(5)), ["recall_at_4", "recall_at_5", "precision_at_9"]
    with pytest.raises(ConfigError, match=r"recall_at_5, precision_at_9 .* K of 1 to 4"):
        retrieval_scores(torch.eye(5), task, names)
    apart = RetrievalTask(torch.zeros(5), torch.tensor([0, 1]), torch.tensor([2, 3, 4]))
    assert retrieval_scores(torch.eye(5), apart, ["recall_at_3"]) == {"recall_at_3": 1}
    with pytest.raises(ConfigError, match="K of 1 to 3"):
        retrieval_scores(torch.eye(5), apart, ["recall_at_4"])


def with_lone_misses(recall: float, labels: np.ndarray) -> float:
    """The authors count an image that is alone in its class as a query, hence as a miss."""
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return recall * float((counts[inverse] > 1).mean())


@pytest.mark.parametrize("path", files("drml", "eval*.npz"))
def test_equals_drml(path: Path) -> None:
    golden = load(path)
    embeddings, labels = map(torch.from_numpy, (golden["in/embeddings"], golden["in/labels"]))
    depths = [int(name.split("_")[-1]) for name in golden if name.startswith("out/recall_at_")]
    found = retrieval_scores(embeddings, RetrievalTask(labels), standard_metrics(depths))
    for name in [*(f"recall_at_{k}" for k in depths), "r_precision"]:
        assert found[name] == pytest.approx(float(golden[f"out/{name}"]), abs=1e-9)
    expected = float(golden["out/mean_average_precision_at_r"])
    assert found["map_at_r"] == pytest.approx(expected, abs=1e-9)
    for k in depths:
        hits = labels[nearest(embeddings, k).indices] == labels[:, None]
        assert hits.double().mean() == pytest.approx(float(golden[f"out/precision_at_{k}"]))


@pytest.mark.parametrize("path", files("idml_dcml", "eval_idml_*.npz"))
def test_equals_idml(path: Path) -> None:
    golden = load(path)
    embeddings = F.normalize(torch.from_numpy(golden["embeddings_raw"]).double())
    labels, most = golden["labels"], int(golden["num_k"])
    depths = {f"recall_at_{k}": k for k in (1, 2, 4, 8, 10, 16, 100) if f"recall_at_{k}" in golden}
    expected = {k: float(golden[name]) for name, k in depths.items()}
    expected |= dict(zip((1, 2, 4, 8), golden["recall_1_2_4_8"], strict=True))
    deep = (1, min(10, most), min(100, most))
    expected |= dict(zip(deep, golden["recall_1_10_100_SOPpath"], strict=True))
    found = retrieval_scores(
        embeddings, RetrievalTask(torch.from_numpy(labels)), standard_metrics(list(expected))
    )
    for k, recall in expected.items():
        assert with_lone_misses(found[f"recall_at_{k}"], labels) == pytest.approx(recall, abs=1e-9)
    assert found["r_precision"] == pytest.approx(float(golden["R_precision"]), abs=1e-9)
    assert found["map_at_r"] == pytest.approx(float(golden["MAP_at_R"]), abs=1e-9)
    assert nearest(embeddings, most).indices.numpy().tolist() == golden["knn_indices"].tolist()


@pytest.mark.parametrize("path", files("idml_dcml", "eval_dcml_*.npz"))
def test_equals_dcml(path: Path) -> None:
    golden = load(path)
    embeddings, labels = map(torch.from_numpy, (golden["embeddings"], golden["labels"]))
    depths = [int(name.split("_")[-1]) for name in golden if name.startswith("e_recall_")]
    found = retrieval_scores(embeddings.double(), RetrievalTask(labels), standard_metrics(depths))
    for k in depths:
        recall = with_lone_misses(found[f"recall_at_{k}"], golden["labels"])
        assert recall == pytest.approx(float(golden[f"e_recall_{k}"]), abs=1e-9)
    assert their_map(embeddings.double(), labels) == pytest.approx(float(golden["mAP_c"]), abs=1e-9)


def their_map(embeddings: torch.Tensor, labels: torch.Tensor) -> float:
    """DCML's mAP_c: as MAP@R, but over n neighbours for a class of n (not n - 1)."""
    size = (labels[:, None] == labels).sum(1)
    near = nearest(embeddings, min(int(size.max()), len(labels) - 1)).indices
    place = torch.arange(1, near.shape[1] + 1)
    hits = (labels[near] == labels[:, None]) & (place <= size[:, None])
    return float(((hits * hits.cumsum(1) / place).sum(1) / size).double().mean())


@pytest.mark.parametrize("path", files("rcdml_dreml", "rcdml_eval*.npz"))
@pytest.mark.parametrize("suffix", ["", "_sop"])
def test_equals_rcdml(path: Path, suffix: str) -> None:
    golden = load(path)
    embeddings = F.normalize(torch.from_numpy(golden[f"X{suffix}"]))
    labels, depths = golden[f"T{suffix}"], golden[f"ks{suffix}"].tolist()
    found = retrieval_scores(
        embeddings, RetrievalTask(torch.from_numpy(labels)), standard_metrics(depths)
    )
    recalls = [with_lone_misses(found[f"recall_at_{k}"], labels) for k in depths]
    assert recalls == pytest.approx(golden[f"recall{suffix}"].tolist(), abs=1e-9)


@pytest.mark.parametrize("path", files("rcdml_dreml", "rcdml_eval*.npz"))
def test_equals_rcdml_in_shop(path: Path) -> None:
    golden = load(path)
    queries, query_labels, gallery, gallery_labels = (
        torch.from_numpy(golden[name]) for name in ("X_query", "T_query", "X_gallery", "T_gallery")
    )
    labels = torch.cat([query_labels, gallery_labels])
    numbers = torch.arange(len(labels))
    task = RetrievalTask(labels, numbers[: len(queries)], numbers[len(queries) :])
    names = [f"recall_at_{k}" for k in golden["ks_inshop"].tolist()]
    found = retrieval_scores(F.normalize(torch.cat([queries, gallery])), task, names)
    known = float(torch.isin(query_labels, gallery_labels).double().mean())  # the rest are misses
    recalls = [recall * known for recall in found.values()]
    assert recalls == pytest.approx(golden["recall_inshop"].tolist(), abs=1e-9)


@pytest.mark.parametrize("rows_per_block", [1, 7, 512])
def test_values_of_queries_are_those_behind_the_scores(
    rows_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", rows_per_block)
    embeddings, labels = slow.rows_with_ties(3, 40), slow.unequal_labels(3, 40)
    task, lone = RetrievalTask(labels), (labels[:, None] == labels).sum(1) == 1
    found = retrieval_values(embeddings, task, slow.names((1, 2, 7, 39)))
    for name, values in found.items():
        assert torch.equal(values.isnan(), lone)
        assert lone.any()
        mean = float(values[~lone].mean())
        assert mean == pytest.approx(retrieval_scores(embeddings, task, [name])[name], abs=1e-12)
    first = found["recall_at_1"]
    for query in range(40):
        hit = labels[slow.ranked(embeddings, task, query)[0]] == labels[query]
        assert lone[query] or float(first[query]) == float(hit)
