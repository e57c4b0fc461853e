"""Everything about a plan that can be known to be wrong before anything runs."""

from collections.abc import Callable

from dmlray import backbones
from dmlray.data import folds
from dmlray.data.cache import open_cache
from dmlray.data.catalogue import Dataset
from dmlray.errors import ConfigError
from dmlray.learn.training import load_dataset
from dmlray.plans.experiment import Experiment


def preflight(plan: Experiment, progress: Callable[[int, int], None] | None = None) -> Dataset:
    """Check data, folds, batches, neighbours and weights; decode the images into the cache.

    Raises:
        DmlrayError: The first thing that is wrong.
    """
    dataset = load_dataset(plan)
    _check_counts(plan, dataset)
    backbone = plan.backbone
    backbones.build(backbone.name, backbone.weights, backbone.pooling, backbone.batchnorm)
    transform = plan.data.transform
    for side in {transform.resize, transform.eval_resize if transform.resize else None}:
        open_cache(dataset, side, progress)
    return dataset


def _check_counts(plan: Experiment, dataset: Dataset) -> None:
    classes = dataset.train_classes
    if plan.protocol.selection == "validation":
        parts = folds.split(dataset, plan.protocol.split, plan.protocol.folds)
        classes = min(len(train) for train, _ in parts)
    size, each = plan.data.batch_size, plan.data.images_per_class
    if each and size // each > classes:
        needs = f"{size} images, {each} of each class, need {size // each} classes"
        allowed = f"Allowed: at most {classes * each}"
        raise ConfigError("data.batch_size", [f"{needs}, but there are {classes}. {allowed}"])
    gallery = int((dataset.labels >= dataset.train_classes).sum()) - 1
    largest = max(plan.protocol.recall_at)
    if largest > gallery:
        problem = f"K = {largest} is beyond the gallery. Allowed: 1 to {gallery}"
        raise ConfigError("protocol.recall_at", [problem])
