"""Everything about a plan that can be known to be wrong before anything runs."""

from collections.abc import Callable

from dmlray import backbones
from dmlray.data.cache import open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.folds import split, train_subset
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError
from dmlray.learn.training import load_dataset
from dmlray.plans.experiment import Experiment


def preflight(
    plan: Experiment, folds: bool = False, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Check data, folds, batches, neighbours and weights; decode the images into the cache.

    `folds`: the plan will be trained on its folds, whatever its selection rule.

    Raises:
        DmlrayError: The first thing that is wrong.
    """
    dataset = load_dataset(plan)
    _check_counts(plan, dataset, folds or plan.protocol.selection == "validation")
    backbone = plan.backbone
    backbones.build(backbone.name, backbone.weights, backbone.pooling, backbone.batchnorm)
    transform = plan.data.transform
    for side in {transform.resize, transform.eval_resize if transform.resize else None}:
        open_cache(dataset, side, progress)
    return dataset


def _check_counts(plan: Experiment, dataset: Dataset, in_folds: bool) -> None:
    parts = [(train_subset(dataset), test_subset(dataset))]
    if in_folds:
        parts += split(dataset, plan.protocol.split, plan.protocol.folds)
    classes = min(len(train.classes) for train, _ in parts)
    size, each = plan.data.batch_size, plan.data.images_per_class
    if each and size // each > classes:
        needs = f"{size} images, {each} of each class, need {size // each} classes"
        allowed = f"Allowed: at most {classes * each}"
        raise ConfigError("data.batch_size", [f"{needs}, but there are {classes}. {allowed}"])
    gallery = min(len(scored) for _, scored in parts) - 1
    largest = max(plan.protocol.recall_at)
    if largest > gallery:
        problem = f"K = {largest} is beyond the gallery. Allowed: 1 to {gallery}"
        raise ConfigError("protocol.recall_at", [problem])
