"""Retrieval scores of embeddings: the retrieval metrics of METRICS, averaged over queries."""

from collections.abc import Sequence

from torch import Tensor

from dmlray.evaluation.input_checks import as_float, check_finite, check_shapes
from dmlray.evaluation.matmul import may_round
from dmlray.evaluation.metrics import STANDARD
from dmlray.evaluation.neighbours import tiles
from dmlray.evaluation.products import Part, similarity
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
    check_shapes("evaluation", embeddings, task.labels)
    check_finite("evaluation", embeddings)
    embeddings = as_float(embeddings)
    task = task.to(embeddings.device)
    ranking = Ranking("evaluation", task, metrics)
    part = Part(task.of_queries(embeddings), task.of_gallery(embeddings))
    rounded = ranking.width <= FEW_PLACES and may_round(embeddings)
    exact = similarity(part, rounded)
    sums = [
        ranking.sums(similarities, numbers, exact)
        for numbers, similarities in tiles(part.queries, part.gallery, ranking.hide, rounded)
    ]
    return ranking.means(sum(sums[1:], sums[0]))
