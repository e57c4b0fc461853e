"""Arrays in, numbers out."""

from dmlray.evaluation.clustering import nmi
from dmlray.evaluation.ensemble_scores import prefix_scores
from dmlray.evaluation.ensemble_selection import greedy
from dmlray.evaluation.pca import Projection, fit_projection
from dmlray.evaluation.retrieval import recall_between, retrieval_scores

__all__ = [
    "Projection", "fit_projection", "greedy", "nmi", "prefix_scores", "recall_between",
    "retrieval_scores",
]  # fmt: skip
