"""Features of a frozen trunk, computed once per process, in place of images in batches."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dmlray.data import folds
from dmlray.data.batches.loader import EVALUATION_BATCH, BatchLoader, Pair, share
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset
from dmlray.learn.process_group import ProcessGroup
from dmlray.plans.experiment import Experiment
from dmlray.tensor_files import hash_tensors

_KEPT = 8  # sets of features: train and validation classes of four folds
_features: OrderedDict[str, Tensor] = OrderedDict()


class FeatureLoader:
    """Batches of a `BatchLoader` with features (B, F) in place of images.

    Args:
        images: Determines the order of the images, which are not cropped.
        features: Of all its images (N, F).
    """

    def __init__(self, images: BatchLoader, features: Tensor, group: ProcessGroup) -> None:
        self._images, self._features, self._group = images, features, group
        self._labels = torch.as_tensor(images.labels, device=features.device)
        self.plan = images.plan
        self.batches_per_epoch = images.batches_per_epoch
        self.images_per_batch = images.images_per_batch
        self.steps_without_pairs = images.steps_without_pairs

    def epoch(self, number: int) -> Iterator[Pair]:
        """Yield (features (B, F), labels (B,)) of each batch of epoch `number`."""
        for positions in self._images.plan(number):
            local = positions[share(len(positions), self._group.rank, self._group.size)]
            rows = torch.as_tensor(local, device=self._features.device)
            yield self._features[rows], self._labels[rows]


def cached_features(
    plan: Experiment, dataset: Dataset, subset: Subset, trunk: str, device: torch.device,
    compute: Callable[[], Tensor],
) -> Tensor:  # fmt: skip
    """Return the features (N, F) of `subset`, cached in this process.

    A search that trains only heads thus runs the trunk once per fold, not once per trial. `trunk`
    is its digest, see `trunk_digest`.
    """
    key = repr((
        dataset.fingerprint, folds.fingerprint(dataset, subset), plan.backbone, plan.data.transform,
        plan.budget.precision, device, trunk,
    ))  # fmt: skip
    if key not in _features:
        _features[key] = compute()
        while len(_features) > _KEPT:
            _features.popitem(last=False)
    _features.move_to_end(key)
    return _features[key]


def trunk_digest(trunk: nn.Module) -> str:
    """Hash all tensors of a trunk: a path of weights may hold others the next time."""
    digest = hashlib.sha256()
    hash_tensors(digest, trunk.state_dict())
    return digest.hexdigest()[:32]


@torch.inference_mode()
def embed_features(function: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Apply `function` to features (N, F) in blocks: (N, D)."""
    return torch.cat([function(rows) for rows in features.split(EVALUATION_BATCH)])
