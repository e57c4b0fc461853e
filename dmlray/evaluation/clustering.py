"""Clustering scores: how well k-means on the embeddings finds the classes, unitless in [0, 1]."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dmlray.errors import ResourceError
from dmlray.evaluation.input_checks import check_finite, check_shapes
from dmlray.evaluation.metrics import clustering_metrics

Progress = Callable[[int, int], None]

ITERATIONS = 20
SEED = 1234
COUNTED = "k-means, iterations"  # what `progress` counts
_NAME = f"faiss k-means, {ITERATIONS} iterations, seed {SEED}"


def name(device: torch.device) -> str:
    """Name the k-means of embeddings on `device`; another k-means gives other scores."""
    return f"{_NAME}, on a GPU" if _has_gpu(device) else _NAME


def clustering_scores(
    embeddings: Tensor,
    labels: Tensor,
    metrics: Sequence[str],
    seed: int = SEED,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Compare labels (N,) with the k-means clusters of embeddings (N, D), k = number of classes.

    The k-means is faiss's, 20 iterations over all images from a random start by `seed`, on the GPU
    of the embeddings if faiss can use it, else on the CPU; see `name`. Its memory is that of the
    embeddings, whatever the number of classes. Without metrics there is none.
    """
    if not metrics:
        return {}
    where = ", ".join(metrics)
    check_shapes(where, embeddings, labels)
    check_finite(where, embeddings)
    clusters, classes = kmeans(embeddings, len(labels.unique()), seed, progress), labels.cpu()
    return {
        name: metric.compute(clusters, classes.numpy())
        for name, metric in clustering_metrics(metrics).items()
    }


def prefix_clusterings(
    members: Sequence[Tensor],
    labels: Tensor,
    metrics: Sequence[str],
    weights: Sequence[float] | None = None,
    first: int = 1,
) -> Iterator[dict[str, float]]:
    """Clustering scores of the first `first`, ..., L members (N, D) side by side.

    Weights are factors of the members' cosines, as of `prefix_scores`.
    """
    factors = [1.0] * len(members) if weights is None else [weight**0.5 for weight in weights]
    for size in range(first, len(members) + 1):
        pairs = zip(members[:size], factors, strict=False)
        joined = torch.cat([factor * member for member, factor in pairs], 1) if metrics else None
        yield {} if joined is None else clustering_scores(joined, labels, metrics)


def kmeans(
    embeddings: Tensor, clusters: int, seed: int = SEED, progress: Progress | None = None
) -> np.ndarray:
    """Cluster numbers (N,) of embeddings (N, D) by faiss's k-means.

    `progress` is called with (iterations done, of all). Each iteration is a call of its own, from
    the centres of the last: the numbers are those of a single call.
    """
    points = np.ascontiguousarray(embeddings.detach().float().cpu().numpy())
    centres, gpu = None, _has_gpu(embeddings.device)
    for done in range(1, ITERATIONS + 1):
        search = _one_iteration(points, clusters, seed, centres, gpu)
        centres = search.centroids
        if progress:
            progress(done, ITERATIONS)
    nearest: np.ndarray = search.index.search(points, 1)[1]
    return nearest[:, 0]


def _one_iteration(
    points: np.ndarray, clusters: int, seed: int, centres: np.ndarray | None, gpu: bool
) -> Any:
    """A faiss.Kmeans that has moved centres (K, D), or random points, once."""
    search = _faiss().Kmeans(
        points.shape[1],
        clusters,
        niter=1,
        seed=seed,
        min_points_per_centroid=1,  # faiss complains below 39 images a class, and
        max_points_per_centroid=len(points),  # draws a sample above 256
        gpu=int(gpu),  # their number
    )
    search.train(points, init_centroids=centres)
    return search


def _has_gpu(device: torch.device) -> bool:
    """Whether faiss can use the GPU `device`: a wheel for CPUs has no such function."""
    return device.type == "cuda" and getattr(_faiss(), "get_num_gpus", int)() > 0


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ResourceError("k-means: it needs faiss, which cannot be loaded here") from error
    return faiss
