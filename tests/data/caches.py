"""Checks of a cache."""

import numpy as np

from dmlray.data.cache.decode import decode
from dmlray.data.cache.image_cache import Cache
from dmlray.data.dataset import Dataset


def assert_holds(cache: Cache, dataset: Dataset, short_side: int | None) -> None:
    assert len(cache) == len(dataset)
    for row, file in enumerate(dataset.files):
        wanted = decode(dataset.root / file, short_side)
        np.testing.assert_array_equal(cache[row], wanted)
        assert cache.sizes(np.array([row])).tolist() == [list(wanted.shape[:2])]
