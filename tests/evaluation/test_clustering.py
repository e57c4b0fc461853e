import builtins
from itertools import combinations
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch

from dmlray.errors import DataError, ResourceError
from dmlray.evaluation.clustering import (
    ITERATIONS,
    SEED,
    clustering_scores,
    kmeans,
    name,
)
from dmlray.evaluation.partitions import (
    adjusted_mutual_information,
    normalised_mutual_information,
    pairwise_f1,
)
from tests.evaluation import slow
from tests.golden_vectors import files, load


def nmi(embeddings: torch.Tensor, labels: torch.Tensor, seed: int = SEED) -> dict[str, float]:
    return clustering_scores(embeddings, labels, ["nmi"], seed)


def blobs(per_class: int = 12, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(classes * per_class) % classes
    centres = torch.eye(classes, 8)[labels]
    return torch.nn.functional.normalize(centres + 0.05 * slow.unit_rows(0, len(labels), 8)), labels


def test_separate_classes_are_found_whatever_their_ids(capfd: pytest.CaptureFixture[str]) -> None:
    embeddings, labels = blobs()
    for seed in range(5):
        assert nmi(embeddings, labels * 1000 + 7, seed)["nmi"] > 0.8
    assert nmi(embeddings, labels)["nmi"] > nmi(slow.unit_rows(1, 60, 8), labels)["nmi"] + 0.3
    assert capfd.readouterr() == ("", "")


def test_the_same_seed_gives_the_same_clusters() -> None:
    embeddings = slow.unit_rows(0, 300, 8)
    assert np.array_equal(kmeans(embeddings, 20, seed=3), kmeans(embeddings, 20, seed=3))
    assert not np.array_equal(kmeans(embeddings, 20, seed=3), kmeans(embeddings, 20, seed=4))


def test_iterations_one_by_one_are_those_of_one_call_and_are_told() -> None:
    embeddings = slow.rows_with_ties(0, 200)  # 16 different rows: most of 60 clusters fall empty
    together = faiss.Kmeans(
        4, 60, niter=20, seed=3, min_points_per_centroid=1, max_points_per_centroid=200
    )
    together.train(embeddings.numpy())
    told = []
    found = kmeans(embeddings, 60, seed=3, progress=lambda *counts: told.append(counts))
    assert np.array_equal(found, together.index.search(embeddings.numpy(), 1)[1][:, 0])
    assert told == [(done, 20) for done in range(1, 21)]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="asks Linux")
def test_memory_stays_far_below_one_number_for_each_image_and_cluster() -> None:
    embeddings = slow.unit_rows(0, 20_000, 8)
    kmeans(embeddings[:100], 10)  # faiss itself
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts anew
    before = _resident("VmRSS")
    kmeans(embeddings, 4_000)  # 320 MB, were all distances kept
    assert _resident("VmHWM") - before < 60


def _resident(field: str) -> float:
    """A line of /proc/self/status, MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1e3


def test_classes_of_more_than_256_images_are_not_sampled() -> None:
    embeddings = torch.cat([torch.zeros(600, 2), torch.ones(600, 2)])
    embeddings[-1] = torch.tensor([1e4, 1e4])
    assert sorted(np.bincount(kmeans(embeddings, 2))) == [1, 1199]


def test_pairwise_f1_counts_pairs() -> None:
    generator = np.random.default_rng(0)
    clusters, labels = generator.integers(4, size=40), generator.integers(6, size=40)
    pairs = [
        (clusters[a] == clusters[b], labels[a] == labels[b]) for a, b in combinations(range(40), 2)
    ]
    both = sum(c and t for c, t in pairs)
    precision, recall = both / sum(c for c, _ in pairs), both / sum(t for _, t in pairs)
    expected = 2 * precision * recall / (precision + recall)
    assert pairwise_f1(clusters, labels) == pytest.approx(expected)
    assert pairwise_f1([1, 2, 3], [1, 2, 3]) == 0


def test_embeddings_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="nmi: 1 embeddings hold NaN"):
        nmi(torch.tensor([[1.0], [torch.nan]]), torch.tensor([0, 1]))


def test_a_machine_without_faiss_hears_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    load_module = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "faiss":
            raise ImportError(name)
        return load_module(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ResourceError, match="k-means: it needs faiss"):
        nmi(*blobs())


@pytest.mark.parametrize("gpus", [0, 1])
def test_embeddings_on_a_gpu_are_clustered_there_if_faiss_can(
    gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import faiss

    found, run = list[int](), faiss.Kmeans

    def recorded(*sizes: int, gpu: int, **options: Any) -> Any:
        found.append(gpu)
        return run(*sizes, **options)

    monkeypatch.setattr(faiss, "Kmeans", recorded)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: gpus, raising=False)
    embeddings, labels = blobs()
    on_gpu = embeddings.as_subclass(OnGpu)
    assert nmi(on_gpu, labels) == nmi(embeddings, labels)
    assert found == ITERATIONS * [gpus] + ITERATIONS * [0]
    assert name(torch.device("cuda")).endswith(", on a GPU") == bool(gpus)


class OnGpu(torch.Tensor):
    """Says that it is on a GPU."""

    device = torch.device("cuda")


@pytest.mark.parametrize("path", files("drml", "eval*.npz"))
def test_given_clusters_score_as_in_drml(path: Path) -> None:
    golden = load(path)
    given = golden["in/cluster_labels"], golden["in/labels"]
    assert normalised_mutual_information(*given) == pytest.approx(float(golden["out/NMI"]))
    assert adjusted_mutual_information(*given) == pytest.approx(float(golden["out/AMI"]))
    assert pairwise_f1(*given) == pytest.approx(float(golden["out/f1_score"]))


@pytest.mark.parametrize("path", files("idml_dcml", "eval_idml_*.npz"))
def test_given_clusters_score_as_in_idml(path: Path) -> None:
    golden = load(path)
    clusters = [golden["kmeans_labels"], *golden["other_assignments"]]
    nmis = [golden["NMI_kmeans"], *golden["other_NMI"]]
    f1s = [golden["F1_kmeans"], *golden["other_F1"]]
    for given, expected_nmi, expected_f1 in zip(clusters, nmis, f1s, strict=True):
        found = normalised_mutual_information(given, golden["labels"])
        assert found == pytest.approx(float(expected_nmi))
        assert pairwise_f1(given, golden["labels"]) == pytest.approx(float(expected_f1))


@pytest.mark.parametrize("path", files("idml_dcml", "eval_dcml_*.npz"))
def test_given_clusters_score_as_in_dcml(path: Path) -> None:
    golden = load(path)
    given = golden["kmeans_labels"], golden["labels"]
    assert normalised_mutual_information(*given) == pytest.approx(float(golden["nmi"]))
    assert pairwise_f1(*given) == pytest.approx(float(golden["f1"]))
