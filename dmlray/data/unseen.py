"""The test classes, in a separate module so that an import contract keeps them from a search."""

import numpy as np

from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, select


def test_subset(dataset: Dataset) -> Subset:
    """Select the test classes, unused in training and selection."""
    return select(dataset, np.arange(dataset.train_classes, len(dataset.classes)))
