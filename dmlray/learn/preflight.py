"""Checks of a plan and its data before anything runs."""

import logging
from collections.abc import Callable
from functools import partial

from dmlray import backbones
from dmlray.data import folds
from dmlray.data.cache.eval_cache import open_eval_cache
from dmlray.data.cache.image_cache import open_cache
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, train_subset
from dmlray.data.unseen import test_subset
from dmlray.errors import ConfigError
from dmlray.evaluation.metrics import label
from dmlray.learn import batch_checks
from dmlray.learn.class_split import fold_subsets, load_dataset, with_folds
from dmlray.learn.retrieval_task import task_of
from dmlray.plans.experiment import Experiment

_logger = logging.getLogger(__name__)


def preflight(
    plan: Experiment,
    folds: bool = False,
    progress: Callable[[int, int], None] | None = None,
    announce: Callable[[int], None] | None = None,
) -> Dataset:
    """Check data, folds, batches, neighbours and weights; decode the images into the cache.

    Args:
        plan: Experiment to check.
        folds: Whether the plan will be trained on its folds, whatever its selection rule.
        progress: Called with (images decoded, images in total).
        announce: Called with the size of the decoded images in bytes, before the first of them.

    Raises:
        DmlrayError: The first problem.
    """
    dataset = load_dataset(plan, progress, announce)
    fitted = with_folds(plan, dataset)
    parts = _parts(fitted, dataset, in_folds=folds)
    if folds or plan.protocol.selection == "validation":
        _warn_of_folds(plan, fitted, dataset)
    scored = [subset for subset in (test_subset(dataset), *(other for _, other in parts)) if subset]
    if scored:
        _check_neighbours(plan, min(task_of(subset).neighbours for subset in scored))
    backbone = plan.backbone
    trunk = backbones.build(backbone.name, backbone.weights, backbone.pooling, backbone.batchnorm)
    transform = plan.data.transform
    trunk.check_size(transform.size)
    if plan.trains:
        batch_checks.check_batchnorm(plan, [train for train, _ in parts], trunk)
    opened = partial(
        open_cache,
        dataset,
        progress=progress,
        announce=announce,
        max_pixels=plan.data.max_pixels,
    )
    opened(transform.train_short_side)
    open_eval_cache(transform, opened, progress, announce)
    return dataset


def _parts(plan: Experiment, dataset: Dataset, in_folds: bool) -> list[tuple[Subset, Subset]]:
    """Return (train, scored) subsets of each training.

    Raises:
        DmlrayError: If there are too few classes; or lists all problems of folds and batches.
    """
    split = plan.data.split
    folds.check_sides(dataset, halved=split == "classes", tested=split != "all")
    parts, errors = [(train_subset(dataset), test_subset(dataset))], []
    if in_folds or plan.protocol.selection == "validation":
        try:
            parts = _checked_folds(plan, dataset, in_folds)
        except ConfigError as error:
            errors.append(error)
    if plan.trains:
        errors += batch_checks.problems(plan, [train for train, _ in parts])
    if len(errors) > 1:
        lines = [f"{error.source}: {text}" for error in errors for text in error.problems]
        raise ConfigError("experiment", lines)
    if errors:
        raise errors[0]
    return parts


def _checked_folds(
    plan: Experiment, dataset: Dataset, in_folds: bool
) -> list[tuple[Subset, Subset]]:
    protocol = plan.protocol
    used = range(protocol.fold_count) if in_folds else [protocol.fold]
    folds.check(dataset, protocol.split, protocol.fold_count, protocol.split_seed, used)
    pairs = fold_subsets(plan, dataset)
    return [pairs[number] for number in used]


def _check_neighbours(plan: Experiment, fewest: int) -> None:
    """Say which metrics are left out for want of neighbours; refuse to choose by one of them."""
    protocol = plan.protocol
    kept = {*protocol.retrieval_metrics(fewest), *protocol.clustering_metrics}
    if protocol.metric not in kept:
        raise too_few_neighbours("protocol.metric", protocol.metric, fewest)
    if beyond := [label(name) for name in protocol.metrics if name not in kept]:
        _logger.warning(
            "protocol: %s is left out where a query is compared with only %d images",
            ", ".join(beyond),
            fewest,
        )


def too_few_neighbours(source: str, metric: str, fewest: int) -> ConfigError:
    """Return the refusal of a metric that queries with `fewest` images to compare with lack."""
    problem = f"{metric} needs more than the {fewest} images that a query is compared with"
    return ConfigError(source, [f"{problem}. Allowed: K of 1 to {fewest}"])


def _warn_of_folds(plan: Experiment, fitted: Experiment, dataset: Dataset) -> None:
    """Warn if the number of folds is open and fewer than the default are used."""
    if plan.protocol.folds is None and fitted.protocol.folds != plan.protocol.fold_count:
        _logger.warning(
            "protocol.folds: using %d, because %d folds of %d classes leave one that cannot be "
            "scored",
            fitted.protocol.folds,
            plan.protocol.fold_count,
            dataset.train_classes,
        )
