"""PCA of members side by side equals PCA of their concatenation, as scikit-learn has it."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from dmlray.errors import ConfigError
from dmlray.evaluation import pca as module
from dmlray.evaluation.pca import fit_projection
from tests.evaluation import slow


def members_of(seed: int, count: int = 90) -> list[torch.Tensor]:
    return [slow.unit_rows(10 * seed + i, count, width) for i, width in enumerate((4, 7, 3))]


@pytest.mark.parametrize("whiten", [False, True])
def test_equals_scikit_learn_on_the_concatenation(
    whiten: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 13)
    train, test = members_of(1), members_of(2, 31)
    ours = fit_projection(train, 5, whiten)(test).double().numpy()
    pca = PCA(5, whiten=whiten).fit(torch.cat(train, 1).double().numpy())
    theirs = pca.transform(torch.cat(test, 1).double().numpy())
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=1e-5)


def test_whitening_alone_keeps_every_direction_that_varies() -> None:
    train = members_of(1)
    twins = [train[0], train[0]]  # 8 dimensions, of which 4 vary
    assert fit_projection(twins, None, True).directions.shape == (8, 4)


@pytest.mark.parametrize("size", [0, 15])
def test_dimensions_that_are_not_there_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=rf"`pca`: {size} is not allowed. Allowed: 1 to 14"):
        fit_projection(members_of(1), size, False)


def test_a_width_beyond_memory_is_refused() -> None:
    with pytest.raises(ConfigError, match="8200 dimensions side by side are too many"):
        fit_projection([torch.zeros(3, 8200)], 2, False)
