"""Clustering scores: how well k-means on the embeddings finds the classes, unitless in [0, 1]."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dmlray.errors import ResourceError
from dmlray.evaluation.input_checks import check_finite, check_shapes

Progress = Callable[[int, int], None]

ITERATIONS = 20
SEED = 1234
COUNTED = "k-means, iterations"  # what `progress` counts
_NAME = f"faiss k-means, {ITERATIONS} iterations, seed {SEED}"


def name(device: torch.device) -> str:
    """Name the k-means of embeddings on `device`; another k-means gives another NMI."""
    return f"{_NAME}, on a GPU" if _has_gpu(device) else _NAME


def nmi(
    embeddings: Tensor, labels: Tensor, seed: int = SEED, progress: Progress | None = None
) -> dict[str, float]:
    """NMI of labels (N,) with the k-means clusters of embeddings (N, D), k = number of classes.

    The k-means is faiss's, 20 iterations over all images from a random start by `seed`, on the GPU
    of the embeddings if faiss can use it, else on the CPU; see `name`. Its memory is that of the
    embeddings, whatever the number of classes.
    """
    check_shapes("nmi", embeddings, labels)
    check_finite("nmi", embeddings)
    clusters = kmeans(embeddings, len(labels.unique()), seed, progress)
    return {"nmi": normalised_mutual_information(clusters, labels.cpu().numpy())}


def kmeans(
    embeddings: Tensor, clusters: int, seed: int = SEED, progress: Progress | None = None
) -> np.ndarray:
    """Cluster numbers (N,) of embeddings (N, D) by faiss's k-means.

    `progress` is told (iterations done, of all). Each iteration is a call of its own, from the
    centres of the last: the numbers are those of a single call.
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


def normalised_mutual_information(clusters: ArrayLike, labels: ArrayLike) -> float:
    """NMI of two partitions (N,), normalised by the mean of their entropies."""
    from sklearn.metrics import normalized_mutual_info_score  # a second to import, rarely needed

    return float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic"))


def adjusted_mutual_information(clusters: ArrayLike, labels: ArrayLike) -> float:
    """AMI of two partitions (N,): NMI less what chance gives, so 0 for a random one."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(labels, clusters, average_method="arithmetic"))


def pairwise_f1(clusters: ArrayLike, labels: ArrayLike) -> float:
    """F1 over pairs of images (N,): sharing a cluster foretells sharing a class.

    0 where no two images share anything.
    """
    together = _pairs(np.stack([np.asarray(clusters), np.asarray(labels)], axis=1))
    foretold, true = _pairs(np.asarray(clusters)), _pairs(np.asarray(labels))
    return 2 * together / max(foretold + true, 1)


def _pairs(groups: np.ndarray) -> int:
    counts = np.unique(groups, axis=0, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _has_gpu(device: torch.device) -> bool:
    """Whether faiss can use the GPU `device`: a wheel for CPUs has no such function."""
    return device.type == "cuda" and getattr(_faiss(), "get_num_gpus", int)() > 0


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ResourceError("nmi: it needs faiss, which cannot be loaded here") from error
    return faiss
