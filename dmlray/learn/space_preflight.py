"""Checks of the points of a search before any is trained."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dmlray import backbones, methods
from dmlray.data.dataset import Dataset
from dmlray.data.folds import Subset, train_subset
from dmlray.errors import ConfigError, DmlrayError
from dmlray.learn.class_split import fold_subsets, with_folds
from dmlray.learn.preflight import preflight, too_few_neighbours
from dmlray.learn.retrieval_task import task_of
from dmlray.plans.search import Search
from dmlray.plans.search_settings import COSTS
from dmlray.plans.space_checks import spelled_like

_MAX_PROBLEMS = 5  # listed
_SHAPELESS = ("optimizer.", "budget.epochs", "budget.warmup", "budget.head_warmup")
_BATCH = ("data.batch_size", "data.images_per_class", "data.replacement")


def preflight_space(search: Search, dataset: Dataset) -> None:
    """Check each choice, the bounds of integers, combinations of batch settings, and the metrics.

    Real numbers change neither shapes nor counts and are not checked.

    Raises:
        ConfigError: Lists why trials of `search` would fail.
    """
    _check_metrics(search, dataset)
    train = train_subset(dataset)
    problems: list[str] = []
    with _quiet():
        for values in _points(search):
            if problem := _problem(search, values, train):
                problems.append(f"{spelled_like(values)}: {problem}")
    if problems:
        raise ConfigError("space", problems[:_MAX_PROBLEMS])


def _check_metrics(search: Search, dataset: Dataset) -> None:
    """Check that every fold has all metrics that are sought; preflight checks only the first."""
    plan = with_folds(search.experiment, dataset)
    fewest = min(task_of(other).neighbours for _, other in fold_subsets(plan, dataset))
    kept = (*plan.protocol.retrieval_metrics(fewest), *COSTS)
    if lacking := [name for name in search.metrics if name not in kept]:
        raise too_few_neighbours("metric", lacking[0], fewest)


def _points(search: Search) -> list[dict[str, Any]]:
    """Return the distinct points that differ in shapes; the experiment itself is checked before."""
    corners = (values for values in search.corners() if not [*values][-1].startswith(_SHAPELESS))
    batches = ({key: point[key] for key in _BATCH if key in point} for point in search.sample())
    points = [*corners, *(values for values in batches if len(values) > 1)]
    return list({search.ranges.fingerprint(values): values for values in points}.values())


def _problem(search: Search, values: dict[str, Any], train: Subset) -> str | None:
    """Return why a trial with these values would fail or be useless, None if it works."""
    plan = search.point(values)
    if "data.batch_size" in values and plan.data.batch_size > len(train):
        return f"there are {len(train)} images to train on. Allowed: at most as many"
    try:
        preflight(plan, folds=True)
        backbone = plan.backbone
        trunk = backbones.build(backbone.name, "none", backbone.pooling, backbone.batchnorm)
        learner = methods.load(plan.method.name).Learner
        learner(plan.method.config, trunk, trunk.width, len(train.classes))
    except DmlrayError as error:
        return str(error).removeprefix(f"{next(iter(values))}: ")
    return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress warnings: those of the experiment were already logged."""
    logger = logging.getLogger(preflight.__module__.rpartition(".")[0])
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
