"""The test classes. Apart from the rest of the room so that a search cannot import them."""

import numpy as np

from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, select


def test_subset(dataset: Dataset) -> Subset:
    """All classes that no learner and no choice has seen."""
    return select(dataset, np.arange(dataset.train_classes, len(dataset.classes)))
