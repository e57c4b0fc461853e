"""Retrieval scores of embeddings: R@K, RP and MAP@R, all fractions in [0, 1]."""

from collections.abc import Sequence

from torch import Tensor

from dmlray.evaluation.input_checks import (
    as_float,
    check_depths,
    check_finite,
    check_pairs,
    check_shapes,
)
from dmlray.evaluation.matmul import may_round
from dmlray.evaluation.neighbours import tiles
from dmlray.evaluation.products import self_similarity, similarity
from dmlray.evaluation.ranking import SelfRetrieval, classes_of, first_hits

RECALL_AT = (1, 2, 4, 8)
FEW_OTHERS = 16  # of a class: the order of more would mostly need exact similarities


def retrieval_scores(
    embeddings: Tensor, labels: Tensor, recall_at: Sequence[int] = RECALL_AT
) -> dict[str, float]:
    """Retrieve each image among all others and average over the queries.

    R@K is the share of queries with a hit among the K nearest (not the recall of information
    retrieval). An image alone in its class stays in the gallery but is no query.

    Args:
        embeddings: (N, D), rows of length 1; similarity is the dot product.
        labels: (N,), any whole numbers.
        recall_at: The K of R@K, each from 1 to N - 1.

    Returns:
        recall_at_K for each K, r_precision, map_at_r.
    """
    check_shapes("evaluation", embeddings, labels)
    check_finite("evaluation", embeddings)
    check_pairs("evaluation", labels)
    check_depths("recall_at", recall_at, len(labels) - 1)
    embeddings = as_float(embeddings)
    scores = SelfRetrieval(labels.to(embeddings.device), recall_at)
    rounded = scores.most <= FEW_OTHERS and may_round(embeddings)
    exact = self_similarity(embeddings, rounded)
    sums = [
        scores.sums(similarities, numbers, exact)
        for numbers, similarities in tiles(
            embeddings, embeddings, exclude_self=True, rounded=rounded
        )
    ]
    return scores.means(sum(sums[1:], sums[0]))


def recall_between(
    queries: Tensor,
    query_labels: Tensor,
    gallery: Tensor,
    gallery_labels: Tensor,
    recall_at: Sequence[int] = RECALL_AT,
) -> dict[str, float]:
    """R@K of queries (Q, D) in a gallery (N, D) that is apart from them, as In-shop has it.

    A query whose class the gallery lacks is a miss.
    """
    for where, embeddings, labels in (
        ("query", queries, query_labels),
        ("gallery", gallery, gallery_labels),
    ):
        check_shapes(where, embeddings, labels)
        check_finite(where, embeddings)
    check_depths("recall_at", recall_at, len(gallery))
    queries, gallery = as_float(queries), as_float(gallery)
    classes = classes_of(query_labels.to(gallery.device), gallery_labels.to(gallery.device))
    found, exact = dict.fromkeys(recall_at, 0), similarity(queries, gallery)
    for numbers, similarities in tiles(queries, gallery, exclude_self=False):
        first = first_hits(similarities, classes, numbers, exact)
        found = {k: count + int((first < k).sum()) for k, count in found.items()}
    return {f"recall_at_{k}": count / len(queries) for k, count in found.items()}
