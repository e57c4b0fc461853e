"""How well two partitions of N images agree, such as clusters and classes: numbers up to 1."""

import numpy as np
from numpy.typing import ArrayLike


def normalised_mutual_information(clusters: ArrayLike, labels: ArrayLike) -> float:
    """NMI of two partitions (N,), normalised by the mean of their entropies."""
    from sklearn.metrics import normalized_mutual_info_score  # a second to import, rarely needed

    return float(normalized_mutual_info_score(labels, clusters, average_method="arithmetic"))


def adjusted_mutual_information(clusters: ArrayLike, labels: ArrayLike) -> float:
    """AMI of two partitions (N,): NMI less what chance gives, so 0 for a random one."""
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(labels, clusters, average_method="arithmetic"))


def pairwise_f1(clusters: ArrayLike, labels: ArrayLike) -> float:
    """F1 over pairs of images (N,): sharing a cluster predicts sharing a class.

    0 where no two images share anything.
    """
    together = _pairs(np.stack([np.asarray(clusters), np.asarray(labels)], axis=1))
    predicted, true = _pairs(np.asarray(clusters)), _pairs(np.asarray(labels))
    return 2 * together / max(predicted + true, 1)


def _pairs(groups: np.ndarray) -> int:
    counts = np.unique(groups, axis=0, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())
