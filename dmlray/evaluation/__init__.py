"""Arrays in, numbers out: exact retrieval and clustering scores."""

from dmlray.evaluation.clustering import clustering_scores
from dmlray.evaluation.comparisons import Comparisons
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.ensemble_selection import greedy
from dmlray.evaluation.metrics import METRICS
from dmlray.evaluation.pca import Projection, fit_projection
from dmlray.evaluation.retrieval import retrieval_scores
from dmlray.evaluation.task import RetrievalTask
from dmlray.evaluation.verification import verify

__all__ = [
    "METRICS", "Comparisons", "Projection", "RetrievalTask", "clustering_scores",
    "fit_projection", "greedy", "prefix_scores", "retrieval_scores", "verify",
]  # fmt: skip
