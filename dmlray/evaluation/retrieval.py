"""Retrieval scores of embeddings: the retrieval metrics of METRICS, averaged over queries."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dmlray.evaluation.input_checks import as_float, check_finite, check_shapes
from dmlray.evaluation.matmul import may_round
from dmlray.evaluation.metrics import STANDARD
from dmlray.evaluation.neighbours import tiles
from dmlray.evaluation.products import Part, Similarity, similarity
from dmlray.evaluation.ranking import Ranking
from dmlray.evaluation.task import RetrievalTask

FEW_PLACES = 16  # that are looked at: the order of more would mostly need exact similarities


def retrieval_scores(
    embeddings: Tensor, task: RetrievalTask, metrics: Sequence[str] = STANDARD
) -> dict[str, float]:
    """Retrieve each query of a task from its gallery and average over the queries that count.

    Args:
        embeddings: (N, D), rows of length 1; similarity is the dot product.
        task: Its labels are (N,). `RetrievalTask(labels)` has every image as a query and all
            others as its gallery; an image alone in its class stays in the gallery then.
        metrics: Names of retrieval metrics, such as recall_at_4.

    Raises:
        DataError: If embeddings and labels do not fit, hold NaN, or no query counts.
        ConfigError: If a metric is not possible.
    """
    ranking, blocks = _blocks(embeddings, task, metrics)
    sums = [ranking.sums(*block) for block in blocks]
    return ranking.means(sum(sums[1:], sums[0]))


def retrieval_values(
    embeddings: Tensor, task: RetrievalTask, metrics: Sequence[str]
) -> dict[str, Tensor]:
    """Return each metric of each query (Q,), float64; NaN for a query that does not count.

    Arguments and errors are those of `retrieval_scores`, whose score is the mean over the rest.
    """
    ranking, blocks = _blocks(embeddings, task, metrics)
    values = torch.cat([ranking.values(*block) for block in blocks], dim=1)
    return dict(zip(metrics, values, strict=True))


def _blocks(
    embeddings: Tensor, task: RetrievalTask, metrics: Sequence[str]
) -> tuple[Ranking, Iterator[tuple[Tensor, Tensor, Similarity]]]:
    """Return the ranking, and blocks of similarities with their queries, as it takes them."""
    check_shapes("evaluation", embeddings, task.labels)
    check_finite("evaluation", embeddings)
    embeddings = as_float(embeddings)
    task = task.to(embeddings.device)
    ranking = Ranking("evaluation", task, metrics)
    part = Part(task.of_queries(embeddings), task.of_gallery(embeddings))
    rounded = ranking.width <= FEW_PLACES and may_round(embeddings)
    exact = similarity(part, rounded)
    tiled = tiles(part.queries, part.gallery, ranking.hide, rounded, near_ties=True)
    return ranking, ((similarities, numbers, exact) for numbers, similarities in tiled)
