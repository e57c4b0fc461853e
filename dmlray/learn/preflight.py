"""Everything about a plan that can be known to be wrong before anything runs."""

import logging
from collections.abc import Callable

import torch

from dmlray import backbones
from dmlray.data.cache import open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.folds import train_subset
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError, ResourceError
from dmlray.learn.device import default_device
from dmlray.learn.training import load_dataset, split
from dmlray.plans.experiment import Experiment

_logger = logging.getLogger(__name__)


def preflight(
    plan: Experiment,
    folds: bool = False,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[int], None] | None = None,
) -> Dataset:
    """Check data, folds, batches, neighbours and weights; decode the images into the cache.

    `folds`: the plan will be trained on its folds, whatever its selection rule. `progress` hears
    (images decoded, images in all), `announce` their size in bytes before the first of them.

    Raises:
        DmlrayError: The first thing that is wrong.
    """
    if plan.budget.compile:
        _check_compiler()
    dataset = load_dataset(plan, progress, announce)
    _check_counts(plan, dataset, folds or plan.protocol.selection == "validation")
    backbone = plan.backbone
    trunk = backbones.build(backbone.name, backbone.weights, backbone.pooling, backbone.batchnorm)
    transform = plan.data.transform
    trunk.check_size(transform.size)
    for side in {transform.train_short_side, transform.eval_short_side}:
        open_cache(dataset, side, progress, announce=announce, max_pixels=plan.data.max_pixels)
    return dataset


def _check_compiler() -> None:
    """Compile something small: torch needs a C++ compiler, or for a GPU Triton."""
    try:
        torch.compile(lambda numbers: numbers.sin() + 1)(torch.ones(4, device=default_device()))
    except Exception as error:  # each of its parts has its own kinds
        reason = f"torch.compile does not work here ({type(error).__name__})"
        raise ResourceError(f"budget.compile: {reason}. Allowed here: false") from error


def _check_counts(plan: Experiment, dataset: Dataset, in_folds: bool) -> None:
    parts = [(train_subset(dataset), test_subset(dataset))]
    if in_folds:
        parts += split(plan, dataset)
    classes = min(len(train.classes) for train, _ in parts)
    size, each = plan.data.batch_size, plan.data.images_per_class
    if each and size // each > classes and plan.data.replacement != "classes":
        needs = f"{size} images, {each} of each class, need {size // each} classes"
        allowed = f"Allowed: at most {classes * each}"
        raise ConfigError("data.batch_size", [f"{needs}, but there are {classes}. {allowed}"])
    fewest = min(len(scored) for _, scored in parts)
    beyond = set(plan.protocol.recall_at) - set(plan.protocol.depths(fewest))
    if beyond:
        listed = ", ".join(map(str, sorted(beyond)))
        _logger.warning(
            "protocol.recall_at: Recall@%s is left out where only %d images are scored",
            listed,
            fewest,
        )
