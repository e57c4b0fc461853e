"""METRICS is the one list: what it names is computed, shown and refused everywhere alike."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
from sklearn.metrics import adjusted_mutual_info_score

from dmlray.errors import ConfigError
from dmlray.evaluation.clustering import clustering_scores, kmeans, prefix_clusterings
from dmlray.evaluation.metrics import (
    METRICS,
    can_choose,
    clustering_metrics,
    find,
    label,
    of_clustering,
    of_retrieval,
    tabled,
)
from dmlray.evaluation.partitions import pairwise_f1
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from tests.evaluation import slow


def test_a_name_holds_its_k_and_a_label_too() -> None:
    assert find("precision_at_10") == (METRICS["precision_at_K"], 10)
    assert find("map_at_r") == (METRICS["map_at_r"], 0)
    assert label("mean_average_precision_at_100") == "mAP@100"
    assert label("recall_at_2") == "Recall@2"
    assert label("r_precision") == "R-Precision"
    assert label("of_a_later_version") == "of_a_later_version"


@pytest.mark.parametrize(
    "name", ["precision", "precision_at_K", "precision_at_0", "recall_at_-1", "nmi_at_3", "x_at_1"]
)
def test_other_names_are_unknown(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown metric '{name}'. Allowed: recall_at_K, "):
        find(name)
    with pytest.raises(ConfigError, match="unknown metric"):
        retrieval_scores(torch.eye(4), RetrievalTask(torch.zeros(4)), [name])


def test_every_metric_is_described_with_its_label() -> None:
    text = Path("docs/metrics.md").read_text(encoding="utf-8")
    for metric in METRICS.values():
        assert f"| `{metric.name}` | {metric.label} |" in text


def test_names_are_parted_by_what_they_need() -> None:
    names = ["ami", "recall_at_4", "precision_at_5", "nmi", "map_at_r"]
    assert of_retrieval(names, 4) == ("recall_at_4", "map_at_r")
    assert of_clustering(names) == ("ami", "nmi")
    with pytest.raises(ConfigError, match=r"nmi is not allowed\. Allowed: retrieval metrics"):
        retrieval_scores(torch.eye(4), RetrievalTask(torch.zeros(4)), ["nmi"])
    with pytest.raises(ConfigError, match="map_at_r needs no k-means"):
        clustering_metrics(["map_at_r", "nmi"])
    assert [can_choose(name) for name in names] == [False, True, True, False, True]


def test_tables_show_all_but_deeper_recall_in_the_order_of_the_list() -> None:
    names = ["nmi", "precision_at_10", "recall_at_2", "map_at_r", "precision_at_5", "recall_at_1"]
    shown = ["recall_at_1", "map_at_r", "precision_at_5", "precision_at_10", "nmi"]
    assert tabled([*names, "of_a_later_version"]) == shown


def test_precisions_equal_pytorch_metric_learning_where_it_defines_them() -> None:
    """Its mAP divides by the hits that are found, ours by R: the same if all are looked at."""
    embeddings = slow.unit_rows(3, 300, 16)
    labels = torch.from_numpy(np.random.default_rng(3).geometric(0.05, 300))
    names = ("precision_at_1", "mean_average_precision", "mean_reciprocal_rank")
    theirs = AccuracyCalculator(include=names, k=299).get_accuracy(embeddings, labels)
    ours = ["precision_at_1", "mean_average_precision_at_299", "mean_reciprocal_rank"]
    found = retrieval_scores(embeddings, RetrievalTask(labels), ours)
    assert list(found.values()) == pytest.approx([theirs[name] for name in names], abs=1e-5)


def test_clustering_scores_share_one_k_means() -> None:
    embeddings, labels = slow.unit_rows(0, 120, 8), torch.arange(120) % 6
    clusters, truth = kmeans(embeddings, 6), labels.numpy()
    found = clustering_scores(embeddings, labels, ["ami", "pairwise_f1"])
    expected = [adjusted_mutual_info_score(truth, clusters), pairwise_f1(clusters, truth)]
    assert list(found.values()) == pytest.approx(expected, abs=1e-12)
    assert clustering_scores(embeddings, labels, []) == {}


def test_clusterings_of_every_size_are_those_of_members_side_by_side() -> None:
    labels = torch.arange(120) % 6
    members = [slow.unit_rows(seed, 120, 4 + seed) for seed in range(3)]
    weights, names = (1.0, 4.0, 0.25), ["nmi", "ami"]
    found = list(prefix_clusterings(members, labels, names, weights))
    joined = torch.cat([members[0], 2 * members[1], members[2] / 2], 1)
    assert found[-1] == clustering_scores(joined, labels, names)
    assert found[0] == clustering_scores(members[0], labels, names)
    assert list(prefix_clusterings(members, labels, names, weights, first=3)) == found[2:]
    assert list(prefix_clusterings(members, labels, [])) == [{}, {}, {}]
